"""What a step policy is: a pure function of the step that decides what it reuses, and why."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

from fxcache.checks import require_integer
from fxcache.forecasts.forecast import Forecast
from fxcache.registry import Registered
from fxcache.step import Decision, Step, known_length


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


@dataclass(frozen=True, kw_only=True)
class Policy(Registered, ABC, registry="policy"):
    """Base of all policies: frozen, validated when made, free of state.

    A subclass defines ``scheduled``, and is known to plans by its name from then on.

    Args:
        first: How many first steps of a run refresh whatever the policy's own rule says. The first
            step always refreshes.
        last: How many last steps refresh. Needs the run's length: from the pipeline, the noise
            scheduler's timesteps, the run before, a plan, or ``fxcache.session(num_steps=...)``.
    """

    first: int = 1
    last: int = 0

    caches: ClassVar[Caches] = Caches.CUT

    def __post_init__(self) -> None:
        require_integer(self, "first", 0)
        require_integer(self, "last", 0)

    @property
    def observes(self) -> Observation | None:
        """The signal that it decides by; None for a schedule that is known beforehand."""
        return None

    @property
    def points(self) -> frozenset[str] | None:
        """The cache points it was calibrated for, by name; None if it takes any."""
        return None

    @property
    def default_forecast(self) -> Forecast | None:
        """How its method reads cached values where ``optimize(forecast=...)`` is left out."""
        return None

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
