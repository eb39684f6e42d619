"""The record of a run, with each step's decision and time; how all calls were attributed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import compile_ns
from fxcache.analysis.hoisting import HoistLevel
from fxcache.step import Decision

MAX_RECORDED_STEPS = 4096


class Stopwatch:
    """Measures the time from its creation to ``stop``, on the denoiser's device.

    Nothing waits for the device until ``elapsed_ms`` is read.

    Args:
        device: The device of the denoiser, as far as it is known; see ``on``.
        timed: Whether the time is measured.

    Attributes:
        stopped: The event that the device reaches at the end of the step; None on the CPU.
        compile_ms: The milliseconds of the step in which torch.compile compiled.
    """

    __slots__ = (
        *("_compiled_ns", "_device", "_elapsed_ms", "_started", "_timed"),
        *("compile_ms", "stopped"),
    )

    def __init__(self, device: torch.device, timed: bool = True) -> None:
        self._device = device if is_asynchronous(device) else None
        self._timed = timed
        self._elapsed_ms: Callable[[], float] | None = None
        self.stopped: torch.Event | None = None
        self.compile_ms, self._compiled_ns = 0.0, compile_ns()
        self._started = self._mark() if timed else None

    def on(self, device: torch.device) -> None:
        """Set the device of the call. If it is another one, the time starts again on it."""
        found = device if is_asynchronous(device) else None
        if found != self._device:
            self._device = found
            self._started = self._mark() if self._timed else None

    def _mark(self) -> "float | torch.Event":
        if self._device is None:
            return time.perf_counter() if self._timed else 0.0
        event = torch.Event(self._device, enable_timing=self._timed)
        event.record()
        return event

    def stop(self) -> None:
        """Record the end of the step."""
        started, stopped = self._started, self._mark()
        self.compile_ms = (compile_ns() - self._compiled_ns) / 1e6
        if isinstance(stopped, torch.Event):
            self.stopped = stopped
        if isinstance(started, float) and isinstance(stopped, float):
            elapsed_ms = 1000 * (stopped - started)
            self._elapsed_ms = lambda: elapsed_ms
        elif isinstance(started, torch.Event) and isinstance(stopped, torch.Event):
            self._elapsed_ms = lambda: waited_ms(started, stopped)

    @property
    def elapsed_ms(self) -> float | None:
        """Milliseconds; None if it was not stopped or not timed. Waits for the device."""
        return self._elapsed_ms() if self._elapsed_ms else None


def is_asynchronous(device: torch.device) -> bool:
    """Return whether the host does not wait for what ``device`` runs."""
    return device.type not in ("cpu", "meta")


def waited_ms(started: torch.Event, stopped: torch.Event) -> float:
    stopped.synchronize()
    return float(started.elapsed_time(stopped))


class RunStep(NamedTuple):
    """One call of a run.

    Attributes:
        decision: What the policy decided, and why.
        stopwatch: The time of the call.
        flops: The FLOPs of the call.
        full_flops: The FLOPs of the full variant for the whole batch.
        groups: The groups of cache points that the decision is about.
        half: Whether the call computed only one half of the guidance.
        level: The level of the values that were hoisted.
        program: The captured program that ran; None in place of one that is gone.
    """

    decision: Decision
    stopwatch: Stopwatch
    flops: int
    full_flops: int
    groups: frozenset[str] = frozenset()
    half: bool = False
    level: HoistLevel = HoistLevel.NOTHING
    program: Callable[[], object] = lambda: None

    def computes(self, group: str) -> bool:
        """Return whether the call computes these cache points instead of reusing them."""
        refreshed = self.decision.refresh or group in self.decision.recompute
        return group in self.groups and refreshed


@dataclass(eq=False)
class Run:
    """The calls of one trajectory since its first refresh."""

    started: str = ""
    steps: list[RunStep] = field(default_factory=list)
    waits: int = 0  # calls whose timestep was read from another device
    signal_waits: int = 0  # calls whose signal was read from another device
    guidance_waits: int = 0  # calls whose halves were compared on another device
    signals: Tensor | None = None  # one for each timestep, if they were precomputed
    listed: bool = False  # among the engine's runs

    def add(self, step: RunStep) -> None:
        """Add a step, up to ``MAX_RECORDED_STEPS``."""
        if len(self.steps) < MAX_RECORDED_STEPS:
            self.steps.append(step)

    @property
    def refreshes(self) -> list[int]:
        """The steps that ran the full variant."""
        return [i for i, step in enumerate(self.steps) if step.decision.refresh]

    @property
    def schedule(self) -> dict[str, list[int]]:
        """The steps that computed each group of cache points, by name of the group."""
        names = dict.fromkeys(name for step in self.steps for name in step.groups)
        return {
            name: [i for i, step in enumerate(self.steps) if step.computes(name)] for name in names
        }

    def times_ms(self, refresh: bool, half: bool = False) -> list[float]:
        """Return the milliseconds of each finished step of one kind."""
        kind = (refresh, half)
        steps = (s for s in self.steps if (s.decision.refresh, s.half) == kind)
        return [t for s in steps if (t := s.stopwatch.elapsed_ms) is not None]

    @property
    def ideal_speedup(self) -> float | None:
        """FLOPs without caching divided by FLOPs spent; None before the first step."""
        spent = sum(s.flops for s in self.steps)
        return sum(s.full_flops for s in self.steps) / spent if spent else None


@dataclass
class Totals:
    """Counts over the whole life of an engine, not only over the runs that are kept.

    Attributes:
        calls: The number of calls.
        refreshes: How many of them refreshed.
        compile_ms: The milliseconds in which torch.compile compiled during calls.
    """

    calls: int = 0
    refreshes: int = 0
    compile_ms: float = 0.0


@dataclass
class Attributions:
    """How the calls since the module was optimised were attributed.

    Attributes:
        calls: The number of calls.
        by_latent: The number of calls whose latents were compared.
        ambiguous: The number of calls that refreshed because no comparison found their trajectory.
        device_waits: How often the host waited for the device to compare latents or prompts.
        lone_starts: The number of runs that began after at least four consecutive runs of one call.
        evicted: The number of trajectories that were dropped before their end to limit memory.
    """

    calls: int = 0
    by_latent: int = 0
    ambiguous: int = 0
    device_waits: int = 0
    lone_starts: int = 0
    evicted: int = 0
