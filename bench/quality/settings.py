"""The settings to measure: each policy at several speeds."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.quality.fitting import Family, Fitter
from bench.quality.sampling import STEPS
from fxcache.partition.request import AUTO
from fxcache.policies import (
    FasterCache,
    GuidanceCache,
    NonUniform,
    ProtectedEnds,
    TaylorSeer,
    Uniform,
)
from fxcache.runtime.settings import Settings

UNCACHED, FEWER, TUNED = "no caching", "fewer steps", "tuned"


@dataclass(frozen=True)
class Candidate:
    """The number of steps and the settings of fxcache for one model; None for no caching."""

    label: str
    steps: int
    settings: Settings | None = None


@dataclass(frozen=True)
class Setting(ABC):
    """A point on a curve. Its ``to_dict`` is unique."""

    curve: str

    @abstractmethod
    def candidate(self, fitter: Fitter) -> Candidate:
        """Return the candidate for the model of ``fitter``."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Steps(Setting):
    """No caching, with a number of steps."""

    steps: int

    def candidate(self, fitter: Fitter) -> Candidate:
        del fitter
        return Candidate(f"{self.steps} steps", self.steps)


@dataclass(frozen=True)
class FixedInterval(Setting):
    """A policy with an interval."""

    policy: Uniform | ProtectedEnds | NonUniform | TaylorSeer | FasterCache

    def candidate(self, fitter: Fitter) -> Candidate:
        settings = Settings(AUTO, self.policy)
        return Candidate(f"interval {self.policy.interval}", fitter.sampling.steps, settings)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"policy": self.policy.to_dict()}


@dataclass(frozen=True)
class WithGuidanceCache(FixedInterval):
    """A policy with an interval, combined with a GuidanceCache."""

    every: int

    def candidate(self, fitter: Fitter) -> Candidate:
        plain = super().candidate(fitter)
        guidance = GuidanceCache(interval=self.every, conditional=fitter.conditional)
        return replace(plain, settings=Settings(AUTO, self.policy, guidance=guidance))


@dataclass(frozen=True)
class WithCorrection(FixedInterval):
    """A policy with an interval and a calibrated drift correction."""

    def candidate(self, fitter: Fitter) -> Candidate:
        plain = super().candidate(fitter)
        correction = fitter.correction(self.policy)
        return replace(plain, settings=Settings(AUTO, self.policy, correction=correction))


@dataclass(frozen=True)
class Calibrated(Setting):
    """A calibrated policy of a family; ``rank`` 0 reuses least."""

    family: Family
    rank: int

    def candidate(self, fitter: Fitter) -> Candidate:
        policy = fitter.policies(self.family)[self.rank]
        value = getattr(policy, self.family.threshold)
        label = f"{self.family.threshold} {value:g}"
        return Candidate(label, fitter.sampling.steps, Settings(AUTO, policy))


@dataclass(frozen=True)
class Trained(Setting):
    """A plan that was trained for the model, with or without its adjustment."""

    plan: str
    adjusted: bool

    def candidate(self, fitter: Fitter) -> Candidate:
        plan = fitter.trained(self.plan)
        adjustment = plan.adjustment if self.adjusted else None
        settings = Settings(plan.cut, plan.policy, adjustment=adjustment)
        return Candidate(self.plan, fitter.sampling.steps, settings)


@dataclass(frozen=True)
class Tuned(Setting):
    """The best schedule of the tuner for a speed-up."""

    speedup: float

    def candidate(self, fitter: Fitter) -> Candidate:
        trial = fitter.tuner.best(self.speedup)
        settings = Settings(trial.cut, trial.policy, trial.forecast)
        return Candidate(f"at {self.speedup:g}×", fitter.sampling.steps, settings)


def calibrated(kind: str, threshold: str = "threshold", **options: Any) -> list[Setting]:
    family = Family(kind, threshold, tuple(options.items()))
    return [Calibrated(kind, family, rank) for rank in range(family.count)]


def taylor(order: int) -> list[Setting]:
    """Return settings of TaylorSeer with forecasts of this order; the published order is 2."""
    return [FixedInterval(f"Taylor, order {order}", TaylorSeer(n, order)) for n in (2, 3, 4, 6, 8)]


INTERVALS = (2, 3, 4, 5, 7, 10)
ADJUSTED = ("blocks-little", "blocks-much")  # plans in bench/plans with an adjustment
CENTER = 0.3 * STEPS  # the centre of DeepCache's non-uniform schedule: 15 of 50 steps, as published

SETTINGS: tuple[Setting, ...] = (
    Steps(UNCACHED, STEPS),
    *(Steps(FEWER, steps) for steps in (38, 30, 25, 20, 16, 12, 10)),
    *(FixedInterval("Uniform", Uniform(n)) for n in INTERVALS),
    *(FixedInterval("ProtectedEnds", ProtectedEnds(n)) for n in (2, 3, 4, 5, 7)),
    *(WithCorrection("Uniform, error-corrected", Uniform(n)) for n in INTERVALS),
    *(WithGuidanceCache("Uniform, guidance", Uniform(n), every=5) for n in INTERVALS),
    *(FixedInterval("NonUniform", NonUniform(n, center=CENTER)) for n in INTERVALS),
    *taylor(0),
    *taylor(1),
    *taylor(2),
    *(FixedInterval("FasterCache, attention", FasterCache(n)) for n in (2, 3, 4, 6, 8)),
    *(WithGuidanceCache("FasterCache", FasterCache(n), every=5) for n in (2, 3, 4, 6, 8)),
    *calibrated("TeaCache"),
    *calibrated("FirstBlock"),
    *calibrated("BlockCaching"),
    *(Trained("BlockCaching, trained", plan, True) for plan in ADJUSTED),
    *(Trained("BlockCaching, the same untrained", plan, False) for plan in ADJUSTED),
    *calibrated("SmoothCache", "alpha"),
    *calibrated("LearnedRouter"),
    # The published limits keep the speed-up below 2×. With these, the threshold decides.
    *calibrated("MagCache", max_reuses=10, retention=0.1),
    *(Tuned(TUNED, speedup) for speedup in (1.5, 2.0, 2.5, 3.0, 4.0)),
)
