"""The base class of forecasts: weights for differences of cached values between refreshes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fxcache.checks import require_integer
from fxcache.registry import Registered
from fxcache.step import Step

MAX_ORDER = 4


@dataclass(frozen=True)
class Forecast(Registered, ABC, registry="forecast"):
    """Base of all forecasts: it extrapolates a cached value to the step that reads it.

    F is the value at the last refresh. With D_0 = F, its divided differences are

        D_i = (D_{i−1} − D_{i−1} at the refresh before) / distance

    where the distance is the number of steps between the two refreshes. A reuse step reads

        F + Σ_i w_i D_i

    A subclass defines the weights w_i, and nothing else. Differences for which there were too few
    refreshes are zero. A forecast is a frozen dataclass without state. A forecast of order n keeps
    the values of the last n + 1 refreshes, in their shape and dtype.

    Args:
        order: How many differences are kept, 1 to 4.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    order: int = 1

    def __post_init__(self) -> None:
        require_integer(self, "order", 1, MAX_ORDER)

    def require(self, step: Step) -> None:
        """Check that the weights can be computed at a step.

        Args:
            step: A step of the run.

        Raises:
            UnknownLengthError: The weights need the run's length, which is unknown.
        """

    @abstractmethod
    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """Compute the weights w_1 … w_n of the differences.

        Args:
            age: How many steps ago the value was stored, 1 or more.
            distance: How many steps lie between the last two refreshes, 1 or more.
            step: The step that reads the value.

        Returns:
            As many weights as the order.
        """
