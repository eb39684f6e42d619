"""A difference whose weight grows over the run: the forecast of FasterCache."""

from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.forecasts.forecast import Forecast
from fxcache.step import Step, known_length


@dataclass(frozen=True)
class Ramp(Forecast):
    """Add the difference of the last two refreshes, with a weight that grows over the run.

    FasterCache (arXiv 2410.19355, equation 4). With a and b the last two refreshes, a reuse step
    reads

        F_a + w (F_a − F_b)

    where w grows linearly, from 0 at the first step to ``most`` at the end of the run. The number
    of steps of the run must be known.

    Args:
        order: Always 1.
        most: The weight w at the end of the run, 0 or more.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    most: float = 1.0

    def __post_init__(self) -> None:
        require_integer(self, "order", 1, 1)
        require_number(self, "most", least=0)

    def require(self, step: Step) -> None:
        """Check that the run's length is known."""
        known_length(type(self).__name__, step)

    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """Compute distance · w: the difference is kept for each step, not for the distance."""
        del age
        return (distance * self.most * step.index / known_length(type(self).__name__, step),)
