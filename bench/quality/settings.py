"""What is measured: each policy at several speeds, and its rivals."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.quality.fitting import Family, Fitter
from bench.quality.sampling import STEPS
from fxcache.partition.request import AUTO
from fxcache.policies import FasterCache, GuidanceCache, NonUniform, TaylorSeer, Uniform
from fxcache.runtime.settings import Settings

UNCACHED, FEWER, TUNED = "no caching", "fewer steps", "tuned"


@dataclass(frozen=True)
class Candidate:
    """What to sample with: so many steps, and fxcache's settings if there is to be caching."""

    label: str
    steps: int
    settings: Settings | None = None


@dataclass(frozen=True)
class Setting(ABC):
    """A point on a curve; ``to_dict`` tells it from all others."""

    curve: str

    @abstractmethod
    def candidate(self, fitter: Fitter) -> Candidate:
        """What stands for it on the model that ``fitter`` knows."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Steps(Setting):
    """No caching."""

    steps: int

    def candidate(self, fitter: Fitter) -> Candidate:
        del fitter
        return Candidate(f"{self.steps} steps", self.steps)


@dataclass(frozen=True)
class HandSet(Setting):
    """A policy with an interval."""

    policy: Uniform | NonUniform | TaylorSeer | FasterCache

    def candidate(self, fitter: Fitter) -> Candidate:
        settings = Settings(AUTO, self.policy)
        return Candidate(f"interval {self.policy.interval}", fitter.sampling.steps, settings)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"policy": self.policy.to_dict()}


@dataclass(frozen=True)
class Guided(HandSet):
    """The same, the unconditional half of the guidance rebuilt at most steps."""

    every: int

    def candidate(self, fitter: Fitter) -> Candidate:
        plain = super().candidate(fitter)
        guidance = GuidanceCache(interval=self.every, conditional=fitter.conditional)
        return replace(plain, settings=Settings(AUTO, self.policy, guidance=guidance))


@dataclass(frozen=True)
class Corrected(HandSet):
    """The same, what is cached moved on by its calibrated trend."""

    def candidate(self, fitter: Fitter) -> Candidate:
        plain = super().candidate(fitter)
        correction = fitter.correction(self.policy)
        return replace(plain, settings=Settings(AUTO, self.policy, correction=correction))


@dataclass(frozen=True)
class Fitted(Setting):
    """One of a family, from little reuse to much."""

    family: Family
    rank: int

    def candidate(self, fitter: Fitter) -> Candidate:
        policy = fitter.policies(self.family)[self.rank]
        value = getattr(policy, self.family.threshold)
        label = f"{self.family.threshold} {value:g}"
        return Candidate(label, fitter.sampling.steps, Settings(AUTO, policy))


@dataclass(frozen=True)
class Trained(Setting):
    """A plan that was trained for the model, with or without what the training added."""

    plan: str
    adjusted: bool

    def candidate(self, fitter: Fitter) -> Candidate:
        plan = fitter.trained(self.plan)
        adjustment = plan.adjustment if self.adjusted else None
        settings = Settings(plan.cut, plan.policy, adjustment=adjustment)
        return Candidate(self.plan, fitter.sampling.steps, settings)


@dataclass(frozen=True)
class Tuned(Setting):
    """The tuner's best schedule at a speed-up."""

    speedup: float

    def candidate(self, fitter: Fitter) -> Candidate:
        trial = fitter.tuner.best(self.speedup)
        settings = Settings(trial.cut, trial.policy, trial.forecast)
        return Candidate(f"at {self.speedup:g}×", fitter.sampling.steps, settings)


def fitted(kind: str, threshold: str = "threshold", **options: Any) -> list[Setting]:
    family = Family(kind, threshold, tuple(options.items()))
    return [Fitted(kind, family, rank) for rank in range(family.count)]


def taylor(order: int) -> list[Setting]:
    """TaylorSeer's schedule with forecasts of this order; its own is 2."""
    return [HandSet(f"Taylor, order {order}", TaylorSeer(n, order)) for n in (2, 3, 4, 6, 8)]


INTERVALS = (2, 3, 4, 5, 7, 10)
ADJUSTED = ("blocks-little", "blocks-much")  # of bench/plans: scale-shift adjustments
CENTER = 0.3 * STEPS  # of DeepCache's non-uniform schedule: 15 of 50 steps, as published

SETTINGS: tuple[Setting, ...] = (
    Steps(UNCACHED, STEPS),
    *(Steps(FEWER, steps) for steps in (38, 30, 25, 20, 16, 12, 10)),
    *(HandSet("Uniform", Uniform(n)) for n in INTERVALS),
    *(Corrected("Uniform, error-corrected", Uniform(n)) for n in INTERVALS),
    *(Guided("Uniform, guidance", Uniform(n), every=5) for n in INTERVALS),
    *(HandSet("NonUniform", NonUniform(n, center=CENTER)) for n in INTERVALS),
    *taylor(0),
    *taylor(1),
    *taylor(2),
    *(HandSet("FasterCache, attention", FasterCache(n)) for n in (2, 3, 4, 6, 8)),
    *(Guided("FasterCache", FasterCache(n), every=5) for n in (2, 3, 4, 6, 8)),
    *fitted("TeaCache"),
    *fitted("FirstBlock"),
    *fitted("BlockCaching"),
    *(Trained("BlockCaching, trained", plan, True) for plan in ADJUSTED),
    *(Trained("BlockCaching, the same untrained", plan, False) for plan in ADJUSTED),
    *fitted("SmoothCache", "alpha"),
    *fitted("LearnedRouter"),
    # The published limits keep it below 2×; these leave the threshold to decide.
    *fitted("MagCache", max_reuses=10, retention=0.1),
    *(Tuned(TUNED, speedup) for speedup in (1.5, 2.0, 2.5, 3.0, 4.0)),
)
