"""Policies fitted to a model, on the calibration pictures alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import DiTPipeline

from bench.quality.sampling import draw_all
from fxcache.calibration import error_correction
from fxcache.calibration.calibration import MEASUREMENTS
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.codecs.drift import DriftCorrection
from fxcache.errors import CutError
from fxcache.integrations.diffusers import denoiser_of
from fxcache.partition.request import AUTO
from fxcache.pipelines.calibrate import Sampling
from fxcache.planning import calibrate
from fxcache.policies import LearnedRouter, Policy
from fxcache.runtime.record import Run
from fxcache.runtime.settings import Settings
from fxcache.tuning.trial import optimized
from fxcache.tuning.tune import Tuner

LOWEST, HIGHEST = 1e-4, 100.0  # thresholds: of almost no reuse, and of as much as there can be
BELOW_ONE = 0.999  # the highest of scores that end at 1
MOST_SPEEDUP = 5.0
NEAR = 0.25
TRIES = 8
TRAINED = Path(__file__).parents[1] / "plans"  # MODEL-NAME.json


@dataclass(frozen=True)
class Family:
    """Policies of one kind that differ in their threshold alone.

    ``threshold``: that option's name; ``options``: the others; ``count``: how many policies.
    """

    kind: str
    threshold: str
    options: tuple[tuple[str, Any], ...] = ()
    count: int = 5


class Fitter:
    """Calibrates each family once, when it is first asked for.

    ``conditional``: the half of the pipeline's batches that is.
    """

    def __init__(self, pipeline: Any, sampling: Sampling):
        self.pipeline, self.sampling = pipeline, sampling
        self.model = denoiser_of(pipeline)
        self.conditional = "first" if isinstance(pipeline, DiTPipeline) else "second"
        self._policies: dict[Family, list[Policy]] = {}

    def policies(self, family: Family) -> list[Policy]:
        """The family, from little reuse to much."""
        if family not in self._policies:
            base = self.calibrated(Policy.kinds[family.kind], dict(family.options))

            def with_threshold(value: float) -> Policy:
                options: dict[str, Any] = {family.threshold: value}
                return replace(base, **options)

            highest = BELOW_ONE if family.kind == LearnedRouter.__name__ else HIGHEST
            values = spread(
                lambda value: self.speedup(with_threshold(value)), family.count, highest
            )
            self._policies[family] = [with_threshold(value) for value in values]
        return self._policies[family]

    def calibrated(self, kind: type[Policy], options: Mapping[str, Any]) -> Policy:
        if kind is LearnedRouter:
            return self.trained("router").policy
        if kind not in MEASUREMENTS:
            return kind(**options)
        return calibrate(self.model, kind, self.sample, **options).policy

    def trained(self, name: str) -> Plan:
        """The plan of this name that was trained for this model; CutError where there is none."""
        mine = fingerprint(self.model)
        for file in sorted(TRAINED.glob(f"*-{name}.json")):
            plan = Plan.load(file)
            if not plan.model.differences(mine):
                return plan
        raise CutError(
            f"no plan {name} was trained for this {type(self.model).__name__}",
            where=str(TRAINED),
            remedy="see bench/README.md for how they are trained",
        )

    def speedup(self, policy: Policy) -> float:
        """From FLOPs, on the calibration pictures."""
        with optimized(self.model, Settings(AUTO, policy)) as engine:
            self.sample()
        return ideal_speedup(engine.runs)

    def correction(self, policy: Policy) -> DriftCorrection:
        """Of what this policy reuses of the default cut."""
        plan = Plan.of(self.model, policy)

        def sample(index: int) -> None:
            draw_all(self.pipeline, replace(self.sampling, seed=self.sampling.seed + 1000 * index))

        corrected = error_correction.measure(self.model, plan, sample).correction
        assert corrected is not None
        return corrected

    @cached_property
    def tuner(self) -> Tuner:
        return Tuner(self.model, self.sample)

    def sample(self) -> Any:
        return draw_all(self.pipeline, self.sampling)


def ideal_speedup(runs: Sequence[Run]) -> float:
    """FLOPs without caching over those spent, over all ``runs``."""
    steps = [step for run in runs for step in run.steps]
    return sum(s.full_flops for s in steps) / sum(s.flops for s in steps)


def spread(speedup: Callable[[float], float], count: int, highest: float = HIGHEST) -> list[float]:
    """``count`` thresholds whose speed-ups are a factor apart, up to 5× or the most there can be.

    By bisection, to within a quarter of that factor where a policy's speed-ups are so dense; of
    three digits each.
    """

    def log_speedup(threshold: float) -> float:
        return math.log(speedup(threshold))

    known = {LOWEST: 0.0, highest: log_speedup(highest)}
    apart = min(math.log(MOST_SPEEDUP), known[highest]) / count
    found = []
    for target in (rank * apart for rank in range(1, count + 1)):
        for _ in range(TRIES):
            if abs(known[nearest(known, target)] - target) <= NEAR * apart:
                break
            below = max((t for t, s in known.items() if s <= target), default=LOWEST)
            above = min((t for t in known if t > below), default=highest)
            middle = float(f"{math.sqrt(below * above):.3g}")
            known[middle] = log_speedup(middle)
        found.append(nearest(known, target))
    return found


def nearest(known: Mapping[float, float], target: float) -> float:
    """The threshold whose value is the nearest to ``target``."""
    return min(known, key=lambda threshold: abs(known[threshold] - target))
