"""DeepCache's non-uniform 1:N caching: refreshes are dense around a centre."""

import math
from dataclasses import dataclass
from functools import lru_cache

from fxcache.checks import require_integer, require_number
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step, known_length

POWER_STEP = 0.02
LEAST_POWER = 0.1  # below this, the roots overflow, and only the ends of the run refresh


@dataclass(frozen=True)
class NonUniform(Policy):
    """Refresh as often as ``Uniform(interval)``, but more densely around one step.

    DeepCache (arXiv 2312.00858, equation 7). The policy needs the number of steps of the run.

    Args:
        interval: The mean number of steps from one refresh to the next, 1 or more.
        center: The step around which refreshes are dense, 0 or more.
        power: How dense they are, 0.1 or more. At 1 they are spread evenly.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    interval: int = 5
    center: float = 15.0
    power: float = 1.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)
        require_number(self, "center", least=0)
        require_number(self, "power", least=LEAST_POWER)

    def scheduled(self, step: Step) -> Decision:
        """Refresh at the steps that equation 7 gives for a run of this length."""
        refreshes = refresh_steps(
            known_length(type(self).__name__, step),
            self.interval,
            float(self.center),
            float(self.power),
        )
        return Decision(step.index in refreshes, f"dense around step {self.center:g}")


@lru_cache(maxsize=64)
def refresh_steps(steps: int, interval: int, center: float, power: float) -> frozenset[int]:
    """The ⌈steps/interval⌉ refresh steps of equation 7, as the paper's own code evaluates it.

    Left of the centre the equation has a root of a negative number. The released code computes it
    in complex arithmetic, and drops the imaginary part at the end. The result differs from the
    signed real root: 50 steps, interval 5, centre 15 and power 1.4 give 0, 5, 9, 13, 17, 21, …
    instead of 0, 6, 11, 14, 15, 19, …. The published results use the released code.

    Rounding to whole steps makes duplicates. The power is lowered until there are enough distinct
    steps. If no power suffices, the free steps nearest to the centre are added.
    """
    wanted = math.ceil(steps / interval)
    chosen: list[int] = [0]
    while power >= LEAST_POWER:
        chosen = sampled_steps(steps, wanted, center, power)
        if len(chosen) == wanted:
            break
        power -= POWER_STEP
    return frozenset(filled(chosen, steps, wanted, center))


def sampled_steps(steps: int, wanted: int, center: float, power: float) -> list[int]:
    """Return the steps of equation 7 at one power: fewer than ``wanted`` if steps coincide."""
    first = complex(-center) ** (1 / power)
    last = complex(steps - center) ** (1 / power)
    points = (first + (last - first) * i / wanted for i in range(wanted + 1))
    rounded = sorted({int((point**power).real) for point in points})
    return [0, *(int(p + center) for p in rounded[1:-1])]


def filled(chosen: list[int], steps: int, wanted: int, center: float) -> set[int]:
    """Return ``chosen`` steps inside the run, completed to ``wanted`` with the nearest steps."""
    inside = {s for s in chosen if 0 <= s < steps}
    nearest = sorted(set(range(steps)) - inside, key=lambda s: (abs(s - center), s))
    return inside | set(nearest[: wanted - len(inside)])
