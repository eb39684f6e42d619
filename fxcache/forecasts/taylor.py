"""Taylor series: the forecast of TaylorSeer."""

import math
from dataclasses import dataclass

from fxcache.forecasts.forecast import Forecast
from fxcache.step import Step


@dataclass(frozen=True)
class Taylor(Forecast):
    """Extrapolate by a Taylor series.

    TaylorSeer (arXiv 2503.06923, equations 2 and 3). For a value that is k steps old, the weights
    of its differences are

        w_i = k^i / i!

    Args:
        order: How many differences are kept, 1 to 4.

    Raises:
        ConfigError: The order is not a whole number from 1 to 4.
    """

    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """Compute age^i / i! for each difference."""
        del distance, step
        return tuple(age**i / math.factorial(i) for i in range(1, self.order + 1))
