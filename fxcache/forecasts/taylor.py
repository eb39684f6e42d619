"""Taylor series: the forecast of TaylorSeer."""

import math
from dataclasses import dataclass

from fxcache.forecasts.forecast import Forecast
from fxcache.step import Step


@dataclass(frozen=True)
class Taylor(Forecast):
    """Extrapolate by a Taylor series: w_i = k^i / i!, for a value that is k steps old.

    TaylorSeer (2503.06923, equations 2 and 3).
    """

    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        del distance, step
        return tuple(age**i / math.factorial(i) for i in range(1, self.order + 1))
