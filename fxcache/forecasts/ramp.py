"""A difference whose weight grows over the run: the forecast of FasterCache."""

from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.forecasts.forecast import Forecast
from fxcache.step import Step, known_length


@dataclass(frozen=True)
class Ramp(Forecast):
    """Add the last difference between refreshes, with a weight that grows linearly over the run.

    FasterCache (2410.19355, equation 4): F + (F - F at the refresh before) · w, with w from 0 at
    the first step to ``most`` at the end. The run's length must be known.

    Args:
        most: The weight at the end of the run, 0 or more.

    Raises:
        ConfigError: An option has an impossible value.
    """

    most: float = 1.0

    def __post_init__(self) -> None:
        require_integer(self, "order", 1, 1)
        require_number(self, "most", least=0)

    def require(self, step: Step) -> None:
        known_length(type(self).__name__, step)

    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        del age
        return (distance * self.most * step.index / known_length(type(self).__name__, step),)
