"""Times of a denoiser's calls, in runs with and without fxcache that take turns."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch

from fxcache.depths import at_depth
from fxcache.gate.subject import Subject
from fxcache.runtime.engine import Engine

ORIGINAL, START, REFRESH, REUSE = "original", "start", "refresh", "reuse"


class CallTime(NamedTuple):
    """The time of one call.

    Attributes:
        kind: ``"original"``, or ``"start"`` for the first call of a run, ``"refresh"`` or
            ``"reuse"``.
        wall_s: Elapsed seconds.
        thread_s: Seconds that this thread computed. On a GPU, the elapsed seconds.
        flops: FLOPs of the call; 0 without fxcache.
        full_flops: FLOPs of a call that reuses nothing; 0 without fxcache.
    """

    kind: str
    wall_s: float
    thread_s: float
    flops: int
    full_flops: int


@dataclass
class Round:
    """The calls of two runs, one without fxcache and one with it."""

    calls: list[CallTime] = field(default_factory=list)

    def times(self, *kinds: str) -> list[float]:
        """Return the thread seconds of each call of these kinds."""
        return [call.thread_s for call in self.calls if call.kind in kinds]

    def flops(self, *kinds: str) -> float:
        """Return the mean FLOPs of the calls of these kinds."""
        return fmean(call.flops for call in self.calls if call.kind in kinds)

    def full_flops(self, *kinds: str) -> float:
        """Return the mean FLOPs of these calls if they reused nothing."""
        return fmean(call.full_flops for call in self.calls if call.kind in kinds)


def measure_rounds(subject: Subject, rounds: int) -> list[Round]:
    """Run the subject with and without fxcache in turns, with engines of the gate's own.

    One round before them does not count.
    """
    with subject.fresh():
        measure_round(subject, 0)
        return [
            at_depth(index, rounds, partial(measure_round, subject, index + 1))
            for index in range(rounds)
        ]


@torch.no_grad()
def measure_round(subject: Subject, index: int) -> Round:
    """Make both runs. Every second round begins with the other one."""
    found = Round()

    def original() -> None:
        with subject.original(), timed(subject, {}, found):
            subject.run()

    def cached() -> None:
        with timed(subject, subject.engines, found):
            subject.run()

    for run in (original, cached) if index % 2 else (cached, original):
        run()
    return found


@contextmanager
def timed(subject: Subject, engines: dict[str, Engine], found: Round) -> Iterator[None]:
    """Time each call of the denoisers inside the block."""
    handles = []
    for name, module in subject.denoisers.items():
        clock = Clock(subject.device, engines.get(name), found)
        handles += [
            module.register_forward_pre_hook(clock.start),
            module.register_forward_hook(clock.stop),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Clock:
    """Times the calls of one module."""

    def __init__(self, device: torch.device, engine: Engine | None, found: Round) -> None:
        self._wait: Callable[[], None] = lambda: None
        self._thread_time = time.thread_time
        if device.type != "cpu":
            self._wait = lambda: torch.accelerator.synchronize(device)
            self._thread_time = time.perf_counter
        self._engine, self._found = engine, found
        self._lengths = lengths_of(engine)
        self._started = (0.0, 0.0)

    def start(self, *_: Any) -> None:
        self._wait()
        self._started = (time.perf_counter(), self._thread_time())

    def stop(self, *_: Any) -> None:
        self._wait()
        wall_s, thread_s = time.perf_counter(), self._thread_time()
        kind, flops, full_flops = self._kind()
        spent = wall_s - self._started[0], thread_s - self._started[1]
        self._found.calls.append(CallTime(kind, *spent, flops, full_flops))

    def _kind(self) -> tuple[str, int, int]:
        """Return the kind and the FLOPs of the last call: its run has a step more than before."""
        if self._engine is None:
            return ORIGINAL, 0, 0
        before, self._lengths = self._lengths, lengths_of(self._engine)
        run = next(r for r in self._engine.runs if len(r.steps) > before.get(id(r), 0))
        step = run.steps[-1]
        kind = REFRESH if step.decision.refresh else REUSE
        return START if len(run.steps) == 1 else kind, step.flops, step.full_flops


def lengths_of(engine: Engine | None) -> dict[int, int]:
    """Return the number of steps of each run by its identity."""
    return {id(run): len(run.steps) for run in engine.runs} if engine else {}
