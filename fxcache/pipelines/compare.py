"""Compares settings of fxcache with each other, with no caching and with fewer steps."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from fxcache._torch import compile_ns, compiled_by
from fxcache.depths import at_depth
from fxcache.integrations.diffusers import denoiser_of
from fxcache.pipelines.drawing import Drawing
from fxcache.pipelines.entrant import Entrant
from fxcache.report.compare import likeness, timed_calls, typical_ms
from fxcache.report.comparison import Row, Spread
from fxcache.runtime.denoisers import denoisers_of
from fxcache.runtime.engine import Engine
from fxcache.runtime.module import detach, engine_of, install
from fxcache.runtime.pipeline import attach_pipeline, detach_pipeline, is_optimized
from fxcache.runtime.record import Stopwatch

ORIGINAL, FEWER, POLICY = "original", "fewer steps", "policy"


class Race:
    """Runs the entrants in turns on one pipeline, with one capture for all of them.

    Args:
        pipeline: The pipeline, which is not optimised.
        say: Called with messages about the progress.
    """

    def __init__(self, pipeline: Any, say: Callable[[str], None]) -> None:
        self.pipeline, self._say = pipeline, say
        self.denoisers = denoisers_of(pipeline)
        self.device = next(denoiser_of(pipeline).parameters()).device
        self._engines: dict[str, Engine] = {}  # of the last entrant, whose captures go on

    def enter(self, label: str, kind: str, drawing: Drawing, steps: int | None = None) -> Entrant:
        """Make the first run of an entrant, which captures what is missing.

        Args:
            label: The setting.
            kind: ``"original"``, ``"policy"`` or ``"fewer steps"``.
            drawing: The pictures to generate.
            steps: The number of steps of the first run; None for those of all runs.
        """
        self._say(f"first run: {label}")
        entrant, compiled_ns = Entrant(label, kind, drawing), compile_ns()
        if kind == POLICY:
            only = list(self.denoisers)[:1] if drawing.plan else list(self.denoisers)
            earlier = {name: e for name, e in self._engines.items() if name in only}
            with self._running(earlier), drawing.optimized(self.pipeline) as target:
                entrant.first_s, _, entrant.images = self._timed(entrant, steps)
                if steps is not None:
                    drawing.optimize(target)  # a shorter run says nothing about the others
                entrant.engines = {
                    name: engine
                    for name, module in self.denoisers.items()
                    if (engine := engine_of(module)) is not None
                }
            self._engines = {**self._engines, **entrant.engines}
        else:
            entrant.first_s, _, entrant.images = self._timed(entrant, steps)
        entrant.compile_s = (compile_ns() - compiled_ns) / 1e9
        entrant.capture_s = sum(e.graphs.capture_s for e in entrant.engines.values())
        return entrant

    def run_all(self, entrants: Sequence[Entrant]) -> None:
        """Make one measured run of each."""
        for entrant in entrants:
            self.run(entrant)

    def run(self, entrant: Entrant) -> None:
        """Make one measured run."""
        for engine in entrant.engines.values():
            engine.runs.clear()
        with self._running(entrant.engines):
            pipeline_s, denoiser_s, entrant.images = self._timed(entrant)
        entrant.pipeline_s.append(pipeline_s)
        entrant.denoiser_s.append(denoiser_s)

    @contextmanager
    def compiled(self, backend: str | None) -> Iterator[None]:
        """Let torch.compile compile the denoisers inside the block; None for eager mode."""
        with ExitStack() as compiled:
            for module in self._modules() if backend else ():
                compiled.enter_context(compiled_by(module, str(backend)))
            yield

    @contextmanager
    def _running(self, engines: Mapping[str, Engine]) -> Iterator[None]:
        """Let ``engines`` run the denoisers inside the block."""
        for name, engine in engines.items():
            install(self.denoisers[name], engine)
        if set(engines) == set(self.denoisers):
            attach_pipeline(self.pipeline, engines)
        try:
            yield
        finally:
            for name in engines:
                if engine_of(self.denoisers[name]) is not None:
                    detach(self.denoisers[name])
            if is_optimized(self.pipeline):
                detach_pipeline(self.pipeline)

    def _timed(self, entrant: Entrant, steps: int | None = None) -> tuple[float, float, list[Any]]:
        """Return the seconds of a run and of its denoiser calls, and its pictures."""
        with ExitStack() as hooks:
            watches = [hooks.enter_context(timed_calls(m)) for m in self._modules()]
            self._wait()
            started = time.perf_counter()
            images = entrant.drawing.draw(self.pipeline, steps or entrant.drawing.steps)
            self._wait()
            pipeline_s = time.perf_counter() - started
        calls = [watch for each in watches for watch in each]
        entrant.calls, entrant.typical_ms = len(calls), typical_ms(calls)
        return pipeline_s, seconds(calls), images

    def _modules(self) -> list[nn.Module]:
        return list({id(module): module for module in self.denoisers.values()}.values())

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def seconds(watches: Sequence[Stopwatch]) -> float:
    """Return the seconds of all calls together."""
    return sum(watch.elapsed_ms or 0.0 for watch in watches) / 1000


def compare_settings(
    pipeline: Any,
    original: Drawing,
    settings: Mapping[str, Drawing],
    rounds: int,
    say: Callable[[str], None] = lambda _: None,
    backend: str | None = None,
) -> tuple[list[Row], list[list[Any]]]:
    """Measure no caching, each setting, and fewer steps at about the denoiser FLOPs of each.

    Each round runs all of them once, in another order each time, and each ratio of times belongs to
    one round.

    Args:
        pipeline: The pipeline, which is not optimised.
        original: The pictures to generate.
        settings: The settings by their labels.
        rounds: The number of measured runs of each.
        say: Called with messages about the progress.
        backend: The backend of torch.compile that compiles the denoisers in each run; None for
            eager mode.

    Returns:
        The rows, and the pictures of each.
    """
    pipeline.set_progress_bar_config(disable=True)
    race = Race(pipeline, say)
    with race.compiled(backend):
        entrants = raced(race, original, settings, rounds, say)
    return [row_of(e, entrants[0]) for e in entrants], [e.images for e in entrants]


def raced(
    race: Race,
    original: Drawing,
    settings: Mapping[str, Drawing],
    rounds: int,
    say: Callable[[str], None],
) -> list[Entrant]:
    """Return the measured entrants, that without caching first."""
    entrants = [race.enter("no caching", ORIGINAL, original)]
    entrants += [race.enter(label, POLICY, drawing) for label, drawing in settings.items()]
    numbers = {max(1, round(original.steps / e.flops)) for e in entrants[1:]}
    for steps in sorted(numbers - {original.steps}, reverse=True):
        fewer = replace(original, steps=steps)
        entrants.append(race.enter(f"fewer steps: {steps}", FEWER, fewer))
    for index in range(rounds):
        say(f"round {index + 1} of {rounds}")
        turn = index % len(entrants)
        order = (*entrants[turn:], *entrants[:turn])
        at_depth(index, rounds, partial(race.run_all, order))
    return entrants


def row_of(entrant: Entrant, original: Entrant) -> Row:
    """Return the row of an entrant, beside the runs without caching of the same rounds."""
    first = entrant is original
    like = likeness(original.images, entrant.images)
    return Row(
        label=entrant.label,
        kind=entrant.kind,
        steps=entrant.drawing.steps,
        calls=entrant.calls,
        refreshes=entrant.refreshes,
        flops=entrant.flops * original.calls / entrant.calls,
        denoiser=None if first else spread(original.denoiser_s, entrant.denoiser_s),
        pipeline=None if first else spread(original.pipeline_s, entrant.pipeline_s),
        psnr_db=like.psnr_db,
        ssim=like.ssim,
        first_s=entrant.first_s,
        capture_s=entrant.capture_s,
        compile_s=entrant.compile_s,
    )


def spread(originals: Sequence[float], others: Sequence[float]) -> Spread:
    """Return the ratios of the times of each round."""
    return Spread.of([a / b for a, b in zip(originals, others, strict=True)])
