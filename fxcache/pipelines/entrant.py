"""One row of ``fxcache compare`` while it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fxcache.pipelines.drawing import Drawing
from fxcache.runtime.engine import Engine


@dataclass
class Entrant:
    """One row while it is measured.

    Attributes:
        label: The setting.
        kind: ``"original"``, ``"policy"`` or ``"fewer steps"``.
        drawing: The pictures to generate.
        engines: The engine of each optimised denoiser; empty without caching.
        images: The pictures of the last run.
        calls: The number of denoiser calls in a run.
        denoiser_s: The time of all denoiser calls of each measured run.
        pipeline_s: The time of each measured run.
        typical_ms: The median time of a denoiser call in the last run, in milliseconds.
        first_s: The time of the first run.
        capture_s: The part of it that went into captures.
        compile_s: The part of it in which torch.compile compiled.
    """

    label: str
    kind: str
    drawing: Drawing
    engines: Mapping[str, Engine] = field(default_factory=dict)
    images: list[Any] = field(default_factory=list)
    calls: int = 0
    denoiser_s: list[float] = field(default_factory=list)
    pipeline_s: list[float] = field(default_factory=list)
    typical_ms: float = 0.0
    first_s: float = 0.0
    capture_s: float = 0.0
    compile_s: float = 0.0

    @property
    def refreshes(self) -> int:
        """The number of calls of the last run that reused nothing."""
        runs = [run for engine in self.engines.values() for run in engine.runs]
        counted = sum(len(run.steps) for run in runs)
        return sum(len(run.refreshes) for run in runs) + self.calls - counted

    @property
    def flops(self) -> float:
        """FLOPs of the last run without caching, divided by those spent; 1 without caching."""
        steps = [s for e in self.engines.values() for run in e.runs for s in run.steps]
        spent = sum(step.flops for step in steps)
        return sum(step.full_flops for step in steps) / spent if spent else 1.0
