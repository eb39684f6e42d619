"""What a forecast is: weights for the differences of cached values between refreshes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fxcache.checks import require_integer
from fxcache.registry import Registered
from fxcache.step import Step

MAX_ORDER = 4


@dataclass(frozen=True)
class Forecast(Registered, ABC, registry="forecast"):
    """Base of all forecasts: frozen, validated when made, free of state.

    A reuse step reads F + Σ_i w_i D_i. F is the value at the last refresh, and D_i are divided
    differences: D_i = (D_{i-1} - D_{i-1} at the refresh before) / distance, D_0 = F, where distance
    is the number of steps between the two refreshes. The weights w_i are all that a subclass
    defines. Differences for which there were too few refreshes are zero.

    Args:
        order: How many differences are kept, 1 to 4.

    Raises:
        ConfigError: An option has an impossible value.
    """

    order: int = 1

    def __post_init__(self) -> None:
        require_integer(self, "order", 1, MAX_ORDER)

    def require(self, step: Step) -> None:
        """Check that the weights can be computed at ``step``.

        Raises:
            UnknownLengthError: They need the run's length, which nothing tells.
        """

    @abstractmethod
    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """The weights of the differences 1 … ``order``.

        Args:
            age: How many steps ago the value was stored.
            distance: Steps between the last two refreshes.
            step: The step that reads the value.
        """
