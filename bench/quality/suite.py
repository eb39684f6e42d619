"""Measures all settings on one model."""

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.quality.classifier import Classifier
from bench.quality.fitting import Fitter, ideal_speedup
from bench.quality.metrics import Interval, features, frechet_interval, likeness
from bench.quality.results import Results, Row
from bench.quality.sampling import draw, draw_all
from bench.quality.settings import Candidate, Setting
from fxcache.calibration.fingerprint import fingerprint
from fxcache.errors import CutError
from fxcache.integrations.diffusers import denoiser_of
from fxcache.pipelines.calibrate import Sampling
from fxcache.pipelines.drawing import Drawing
from fxcache.report.compare import timed_calls, typical_ms
from fxcache.runtime.engine import Engine
from fxcache.runtime.record import Run, Stopwatch
from fxcache.tuning.trial import optimized

TIMED_STEPS = 10  # the steps of the uncached runs that are timed beside cached ones
PAIRS = 5


@dataclass(frozen=True)
class Protocol:
    """How a model is measured. ``pairs`` is the number of batches that are timed."""

    measured: Sampling
    calibration: Sampling
    pairs: int = PAIRS


class Bench:
    """The measurement of one model, with a second, unmodified pipeline for the original's times.

    Args:
        pipeline: Loads the pipeline.
        protocol: How the model is measured.
        classifier: Computes the features for the Fréchet distance.
        reference: The glyph of each caption, ``[N, H, W, 3]`` in [0, 1].
    """

    def __init__(
        self,
        pipeline: Callable[[], Any],
        protocol: Protocol,
        classifier: Classifier,
        reference: Tensor,
    ):
        self.pipeline, self.untouched = pipeline(), pipeline()
        self.model = denoiser_of(self.pipeline)
        self.protocol, self.classifier = protocol, classifier
        self.fitter = Fitter(self.pipeline, protocol.calibration)
        self.reference = features(classifier, reference)

    @cached_property
    def originals(self) -> Tensor:
        """The images without caching."""
        return draw_all(self.untouched, self.protocol.measured)

    def describe(self) -> dict[str, Any]:
        """Describe the protocol and the model, to recognise results of others."""
        return asdict(self.protocol) | {"denoiser": fingerprint(self.model).to_dict()}

    def row(self, setting: Setting) -> Row:
        candidate = setting.candidate(self.fitter)
        images, speed = self.sampled(candidate)
        close = likeness(self.originals, images)
        distance = frechet_interval(features(self.classifier, images), self.reference)
        return {
            "setting": setting.to_dict(),
            "curve": setting.curve,
            "label": candidate.label,
            "machine": machine(),
            **speed,
            **close._asdict(),
            "frechet": distance._asdict(),
        }

    def sampled(self, candidate: Candidate) -> tuple[Tensor, Row]:
        """Return all images, and the speed-ups of the denoiser."""
        drawings = [replace(d, steps=candidate.steps) for d in self.protocol.measured.drawings()]
        images, runs, ratios = [], [], []
        with self.cached(candidate) as engine:
            for index, drawing in enumerate(drawings):
                # The first batch makes the graphs, so it is not timed.
                timed = 1 <= index <= self.protocol.pairs
                original_ms = self.original_ms(drawing) if timed else None
                with timed_calls(self.model) as watches:
                    images.append(draw(self.pipeline, drawing))
                new = runs_of(engine)
                runs += new
                if original_ms:
                    ratios.append(original_ms / step_ms(watches, new))
        fewer = self.protocol.measured.steps / candidate.steps
        ratio = Interval(fewer * median(ratios), fewer * min(ratios), fewer * max(ratios))
        ideal = fewer * (ideal_speedup(runs) if runs else 1.0)
        return torch.cat(images), {"ideal_speedup": ideal, "speedup": ratio._asdict()}

    @contextmanager
    def cached(self, candidate: Candidate) -> Iterator[Engine | None]:
        """Optimise the denoiser with the candidate's settings, if any, inside the block."""
        if candidate.settings is None:
            yield None
            return
        with optimized(self.model, candidate.settings) as engine:
            yield engine

    def original_ms(self, drawing: Drawing) -> float:
        """Measure the time of a call of the original in milliseconds."""
        with timed_calls(denoiser_of(self.untouched)) as watches:
            draw(self.untouched, replace(drawing, steps=min(drawing.steps, TIMED_STEPS)))
        return typical_ms(watches)


def machine() -> str:
    """Return the name of the processor, and the number of threads."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, threads: {torch.get_num_threads()}"


def runs_of(engine: Engine | None) -> list[Run]:
    """Return the runs since the last call of this function."""
    if engine is None:
        return []
    runs = list(engine.runs)
    engine.runs.clear()
    return runs


def step_ms(watches: Sequence[Stopwatch], runs: Sequence[Run]) -> float:
    """Return the mean time of a step, computed from the median of each kind of step."""
    steps = [step for run in runs for step in run.steps]
    does: list[Any] = [(s.decision.refresh, s.decision.recompute, s.half) for s in steps]
    by_kind: dict[Any, list[Stopwatch]] = {}
    for watch, kind in zip(watches, does or [None] * len(watches), strict=True):
        by_kind.setdefault(kind, []).append(watch)
    return sum(len(same) * typical_ms(same) for same in by_kind.values()) / len(watches)


def measure(name: str, bench: Bench, settings: Sequence[Setting], results: Results) -> None:
    """Measure the settings that ``results`` lacks."""
    for setting in settings:
        if results.has(name, setting.to_dict()):
            continue
        try:
            row = bench.row(setting)
        except CutError as error:
            print(f"{name}: {setting.curve} left out: {error}", file=sys.stderr, flush=True)
            continue
        results.add(name, row)
        summary = f"{row['ideal_speedup']:.2f}×, {row['psnr_db']:.2f} dB"
        print(f"{name}: {row['curve']}, {row['label']}: {summary}", file=sys.stderr, flush=True)
