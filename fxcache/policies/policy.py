"""The base class of policies: a policy is a pure function of the step that decides its reuse."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

from fxcache.checks import require_integer
from fxcache.errors import ConfigError, UnknownLengthError
from fxcache.forecasts.forecast import Forecast
from fxcache.registry import Registered
from fxcache.step import Decision, Step, known_length

# Reasons of steps that refresh because they lie at an end of the run.
FIRST_STEPS, LAST_STEPS = "first steps", "last steps"
LENGTH_UNKNOWN = "the run's length is unknown"  # the reason of a refresh


class Caches(Enum):
    """The values that a policy caches with ``cut="auto"``.

    Attributes:
        CUT: The values of one cut. They are refreshed together.
        BLOCKS: The residual branch of each attention block. Each is refreshed separately.
        ATTENTION: The outputs of all attentions. They are refreshed together.
        LAYERS: The sum that each attention and each MLP adds. Each is refreshed separately.
        COMPONENTS: The same values. All of one kind of layer are refreshed together.
    """

    CUT = "cut"
    BLOCKS = "blocks"
    ATTENTION = "attention"
    LAYERS = "layers"
    COMPONENTS = "components"


class Signal(Enum):
    """A value of the model that indicates how much its output changes from step to step.

    Attributes:
        MODULATED_INPUT: The input of the first layer in the first block, after modulation by the
            timestep.
        TIMESTEP_EMBEDDING: The embedding of the timestep. It is known before the run.
        FIRST_BLOCK: The sum that the first block adds to the latent's stream.
    """

    MODULATED_INPUT = "modulated_input"
    TIMESTEP_EMBEDDING = "timestep_embedding"
    FIRST_BLOCK = "first_block"


class Since(Enum):
    """The earlier value of a signal with which a step is compared.

    Attributes:
        STEP: The value at the step before.
        REFRESH: The value at the last refresh.
    """

    STEP = "step"
    REFRESH = "refresh"


class Observation(NamedTuple):
    """The signal whose change a policy observes at each step.

    The change from an earlier value m_a to m_s is ‖m_s − m_a‖₁ / ‖m_a‖₁. Policies find it in
    ``Step.changes``.

    Attributes:
        signals: Signals in the order of preference. The first that the model has is observed.
        since: The earlier value with which the signal is compared.
    """

    signals: tuple[Signal, ...]
    since: Since


@dataclass(frozen=True, kw_only=True)
class Policy(Registered, ABC, registry="policy"):
    """Base of all policies: it decides which steps refresh.

    A policy is a frozen dataclass without state. A subclass defines ``scheduled``, and plans know
    it by its name from then on.

    Args:
        first: The number of first steps of a run that refresh regardless of ``scheduled``. The
            first step always refreshes.
        last: The number of last steps that refresh. The policy then needs the number of steps of
            the run, from the pipeline, the noise scheduler's timesteps, the run before, a plan, or
            ``fxcache.session(num_steps=...)``.

    Attributes:
        caches: The values that are cached with ``cut="auto"``; a class attribute.
        measured: The option that a plan fits to a model, without which there is no policy; empty if
            there is none. A class attribute.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    first: int = 1
    last: int = 0

    caches: ClassVar[Caches] = Caches.CUT
    measured: ClassVar[str] = ""

    def __post_init__(self) -> None:
        require_integer(self, "first", 0)
        require_integer(self, "last", 0)

    @property
    def observes(self) -> Observation | None:
        """The signal that the policy decides by. None if it needs no signal."""
        return None

    @property
    def points(self) -> frozenset[str] | None:
        """The names of the cache points that it was calibrated for. None if it supports any."""
        return None

    @property
    def uncalibrated(self) -> str | None:
        """What calibration would give the policy that it lacks. None if it lacks nothing."""
        return None

    @property
    def default_forecast(self) -> Forecast | None:
        """The forecast without ``optimize(forecast=...)``. None reuses values unchanged."""
        return None

    def decide(self, step: Step) -> Decision:
        """Decide whether a step refreshes or reuses.

        Args:
            step: The step, with the changes that the policy observes.

        Returns:
            The decision, with its reason.

        Raises:
            UnknownLengthError: The policy needs the run's length, which is unknown.
            ScheduleError: The policy was calibrated for runs of another length.
            ConfigError: ``scheduled`` returns no decision.
        """
        if step.index < max(self.first, 1):
            return Decision(True, FIRST_STEPS)
        if self.last and step.index >= known_length(type(self).__name__, step) - self.last:
            return Decision(True, LAST_STEPS)
        return required(self.scheduled(step), type(self).__name__)

    def plans_refresh(self, step: Step) -> bool:
        """Return whether a step refreshes whatever is observed. It may if the length is unknown."""
        if self.observes is not None:
            return False
        try:
            return self.decide(step).refresh
        except UnknownLengthError:
            return True

    def without_length(self, step: Step) -> Decision:
        """Decide in place of ``decide`` if that raised UnknownLengthError. A warning is given.

        Args:
            step: The step; nothing tells the length of its run.

        Returns:
            The decision, with its reason. By default the step refreshes.
        """
        del step
        return Decision(True, LENGTH_UNKNOWN)

    @abstractmethod
    def scheduled(self, step: Step) -> Decision:
        """Decide by the policy's own rule, between the first and the last steps.

        Args:
            step: The step, with the changes that the policy observes.

        Returns:
            The decision, with its reason.
        """


def required(decision: object, policy: str) -> Decision:
    """Return ``decision``. Raise ConfigError if it is none: a policy may be a user's own."""
    if isinstance(decision, Decision):
        return decision
    raise ConfigError(
        f"{decision!r} is no Decision",
        where=f"{policy}.scheduled",
        remedy="return fxcache.Decision(refresh, reason)",
    )
