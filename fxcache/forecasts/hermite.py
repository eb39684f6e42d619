"""Hermite polynomials: the forecast of HiCache."""

import math
from dataclasses import dataclass

from fxcache.checks import require_number
from fxcache.forecasts.forecast import Forecast
from fxcache.step import Step


@dataclass(frozen=True)
class Hermite(Forecast):
    """Extrapolate by contracted Hermite polynomials.

    HiCache (arXiv 2508.16984). For a value that is k steps old, the weights of its differences are

        w_i = σ^i H_i(σ k) / i!

    where H_i are the physicists' Hermite polynomials. They grow less than the powers of a Taylor
    series, so a forecast over many steps overshoots less.

    Args:
        order: How many differences are kept, 1 to 4.
        contraction: σ, more than 0 and at most 1. The authors use 0.5.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    contraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "contraction", least=0, most=1, exclusive=True)

    def weights(self, age: int, distance: int, step: Step) -> tuple[float, ...]:
        """Compute σ^i H_i(σ age) / i! for each difference."""
        del distance, step
        values = hermite_polynomials(self.order, self.contraction * age)
        return tuple(
            self.contraction**i * values[i] / math.factorial(i) for i in range(1, self.order + 1)
        )


def hermite_polynomials(order: int, x: float) -> list[float]:
    """Evaluate H_0(x) … H_order(x), by H_{i+1}(x) = 2x H_i(x) − 2i H_{i−1}(x)."""
    values = [1.0, 2 * x]
    for i in range(1, order):
        values.append(2 * x * values[i] - 2 * i * values[i - 1])
    return values
