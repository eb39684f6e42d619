"""What a step policy is: a pure function of the step, told what to do and why."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from fxcache.errors import ConfigError, ScheduleError, UnknownLengthError
from fxcache.schedule.checks import require_integer

MAX_ORDER = 4


class Caches(Enum):
    """What a policy caches where ``cut="auto"``."""

    CUT = "cut"  # what one cut needs, refreshed together
    BLOCKS = "blocks"  # the residual branch of each attention block, each by itself
    ATTENTION = "attention"  # what all attentions return, refreshed together
    LAYERS = "layers"  # what each attention and each MLP adds, each by itself
    COMPONENTS = "components"  # the same, all of a kind refreshed together


class Signal(Enum):
    """A value that tells how far the denoiser has moved."""

    MODULATED_INPUT = "modulated_input"  # of the first block: what its first layer reads
    TIMESTEP_EMBEDDING = "timestep_embedding"
    FIRST_BLOCK = "first_block"  # what the first block adds to the latent's stream


class Since(Enum):
    """Which earlier value of its signal a step's change is measured from."""

    STEP = "step"
    REFRESH = "refresh"


class Observation(NamedTuple):
    """What a policy asks to be told of each step: the relative L1 change of a signal.

    ``signals``: the first of these that the model has.
    """

    signals: tuple[Signal, ...]
    since: Since


class Decision(NamedTuple):
    """Refresh (run ``full`` and store) or reuse (run ``cached_skip``), and the reason.

    ``recompute``: the cache points that a reuse step computes and stores all the same.
    """

    refresh: bool
    reason: str
    recompute: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the denoiser within a run.

    Attributes:
        index: The number of the call in its run, from 0; duplicated timesteps count.
        num_steps: How many calls the run is expected to make; None where nothing tells.
        last_refresh: The index of the last call that refreshed everything.
        changes: What the policy asked to observe, for each call after that one, this call's last.
        schedule_steps: How many timesteps the noise schedule has, of which a model may serve only
            a part; None where nothing tells.
    """

    index: int
    num_steps: int | None
    last_refresh: int = 0
    changes: tuple[float, ...] = ()
    schedule_steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Base of all policies: frozen, validated when made, free of state.

    Attributes:
        first: So many first steps of a run are refreshed whatever the schedule says. The first
            call of a run always is.
        last: The same of its last steps. It needs the run's length: from the pipeline, the noise
            scheduler's timesteps, the run before, a plan, or ``fxcache.session(num_steps=...)``.
        forecast_order: What is cached is extrapolated by a Taylor series of this order (TaylorSeer,
            2503.06923, equation 3) from as many differences between refreshes; 0 reuses it as it
            is.
    """

    first: int = 1
    last: int = 0
    forecast_order: int = 0

    kinds: ClassVar[dict[str, type["Policy"]]] = {}
    caches: ClassVar[Caches] = Caches.CUT

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
            Policy.kinds[cls.plan_name()] = cls  # a class that is defined again replaces the first

    @classmethod
    def plan_name(cls) -> str:
        """The name that plans know this policy by: ``module:QualName``, for fxcache's own short."""
        ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        return cls.__name__ if ours else f"{cls.__module__}:{cls.__qualname__}"

    def __post_init__(self) -> None:
        require_integer(self, "first", 0)
        require_integer(self, "last", 0)
        require_integer(self, "forecast_order", 0, MAX_ORDER)

    @property
    def observes(self) -> Observation | None:
        """The signal that it decides by; None for a schedule that is known beforehand."""
        return None

    @property
    def points(self) -> frozenset[str] | None:
        """The cache points it was calibrated for, by name; None if it takes any."""
        return None

    def forecast(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """Weights of the derivatives 1 … ``forecast_order`` of a value cached ``age`` steps ago.

        ``distance``: steps between the last two refreshes, over which they were taken. ``step``:
        the one that reads the value.
        """
        del distance, step
        return tuple(age**i / math.factorial(i) for i in range(1, self.forecast_order + 1))

    def decide(self, step: Step) -> Decision:
        """Refresh or reuse at ``step``; raises ScheduleError where the run's length is missing."""
        if step.index < max(self.first, 1):
            return Decision(True, "first steps")
        if self.last and step.index >= known_length(type(self).__name__, step) - self.last:
            return Decision(True, "last steps")
        return self.scheduled(step)

    @abstractmethod
    def scheduled(self, step: Step) -> Decision:
        """The policy's own rule, for the steps between ``first`` and ``last``."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` reads it back."""
        return {"policy": self.plan_name(), **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Policy":
        """The policy that ``to_dict`` described; ConfigError for unknown names."""
        options = dict(data)
        name = options.pop("policy", None)
        kind = Policy.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise unknown_policy(name)
        known = {field.name for field in fields(kind)}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(
                f"{name} has no option {', '.join(unknown)}",
                remedy=f"its options are: {', '.join(sorted(known))}",
            )
        return kind(**options)


def unknown_policy(name: object) -> ConfigError:
    """The error for a policy that is not registered; it says what to import."""
    listed = f"use one of: {', '.join(sorted(Policy.kinds))}"
    module, colon, qualname = str(name).partition(":")
    return ConfigError(
        f"there is no policy named {name!r}",
        remedy=f"import {module} first, which defines {qualname}" if colon else listed,
    )


def require_length(what: str, length: int, step: Step) -> None:
    """Check that the run is as long as those that ``what`` was calibrated for.

    Raises:
        UnknownLengthError: Nothing tells the run's length.
        ScheduleError: It is another one.
    """
    num_steps = known_length(what, step)
    if length not in (num_steps, step.schedule_steps):
        raise ScheduleError(
            f"{what} was calibrated for runs of {length} steps; this run has {num_steps} steps",
            where=f"step {step.index}",
            remedy="calibrate for this number of steps",
        )


def known_length(what: str, step: Step) -> int:
    """The number of calls that the run makes.

    Raises:
        UnknownLengthError: Nothing tells it.
    """
    if step.num_steps is None:
        raise UnknownLengthError(
            f"{what} needs to know how many steps the run has",
            where=f"step {step.index}",
            remedy="optimize the pipeline instead of the model, iterate over the noise "
            "scheduler's timesteps tensor, or open the loop with "
            "`with fxcache.session(model, num_steps=...):`",
        )
    return step.num_steps
