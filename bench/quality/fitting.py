"""Fits policies to a model, with the calibration images only."""

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

LOWEST, HIGHEST = 1e-4, 100.0  # thresholds with almost no reuse, and with the most reuse
BELOW_ONE = 0.999  # the highest threshold for scores up to 1
MOST_SPEEDUP = 5.0
NEAR = 0.25
TRIES = 8
TRAINED = Path(__file__).parents[1] / "plans"  # the folder of files MODEL-NAME.json


@dataclass(frozen=True)
class Family:
    """Policies of one kind that differ only in their threshold.

    Attributes:
        kind: The name of the policy's class.
        threshold: The name of the option for the threshold.
        options: The other options.
        count: The number of policies.
    """

    kind: str
    threshold: str
    options: tuple[tuple[str, Any], ...] = ()
    count: int = 5


class Fitter:
    """Calibrates each family at its first use.

    Attributes:
        conditional: The half of the pipeline's batches that is conditional.
    """

    def __init__(self, pipeline: Any, sampling: Sampling):
        self.pipeline, self.sampling = pipeline, sampling
        self.model = denoiser_of(pipeline)
        self.conditional = "first" if isinstance(pipeline, DiTPipeline) else "second"
        self._policies: dict[Family, list[Policy]] = {}

    def policies(self, family: Family) -> list[Policy]:
        """Return the policies of the family, from little reuse to much."""
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
        """Return the plan with this name for this model; raise CutError if there is none."""
        mine = fingerprint(self.model)
        for file in sorted(TRAINED.glob(f"*-{name}.json")):
            plan = Plan.load(file)
            if not plan.model.differences(mine):
                return plan
        raise CutError(
            f"no plan {name} was trained for this {type(self.model).__name__}",
            where=str(TRAINED),
            remedy="train it as bench/README.md describes",
        )

    def speedup(self, policy: Policy) -> float:
        """Return the speed-up from FLOPs on the calibration images."""
        with optimized(self.model, Settings(AUTO, policy)) as engine:
            self.sample()
        return ideal_speedup(engine.runs)

    def correction(self, policy: Policy) -> DriftCorrection:
        """Measure the drift correction of this policy at the default cut."""
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
    """Return FLOPs without caching divided by FLOPs spent, over all ``runs``."""
    steps = [step for run in runs for step in run.steps]
    return sum(s.full_flops for s in steps) / sum(s.flops for s in steps)


def spread(speedup: Callable[[float], float], count: int, highest: float = HIGHEST) -> list[float]:
    """Find ``count`` thresholds with speed-ups in a geometric series, up to 5× or the maximum.

    Each is found by bisection, to within a quarter of the ratio if the policy allows it, and has
    three digits.
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
    """Return the threshold whose value is nearest to ``target``."""
    return min(known, key=lambda threshold: abs(known[threshold] - target))
