"""FasterCache: computes attentions at every other step, and extrapolates in between."""

from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import require_integer, require_number
from fxcache.forecasts import Ramp
from fxcache.policies.policy import Caches, Policy
from fxcache.step import Decision, Step, known_length


@dataclass(frozen=True)
class FasterCache(Policy):
    """Compute attentions at some steps only, and extrapolate them in between.

    FasterCache (arXiv 2410.19355, equation 4). A reuse step uses

        F_a + w (F_a − F_b)

    as the output of an attention. Here a and b are the last two steps that computed it, and the
    weight w grows linearly over the run. Everything else is computed at every step. The policy
    needs the number of steps of the run.

    Args:
        interval: The number of steps from one refresh of the attentions to the next, 1 or more.
        most: The weight w at the end of the run, 0 or more.
        first: The number of first steps that compute everything.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    caches: ClassVar[Caches] = Caches.ATTENTION

    interval: int = 2
    most: float = 1.0
    first: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)
        require_number(self, "most", least=0)

    def scheduled(self, step: Step) -> Decision:
        """Compute attentions every ``interval`` steps, counted from the last of the first steps."""
        known_length(type(self).__name__, step)
        after = step.index - max(self.first - 1, 0)
        return Decision(after % self.interval == 0, f"every {self.interval} steps")

    @property
    def default_forecast(self) -> Ramp:
        """The difference of the last two refreshes, with the weight that grows to ``most``."""
        return Ramp(most=self.most)
