"""FasterCache: attentions at every other step, extrapolated in between."""

from dataclasses import dataclass, field
from typing import ClassVar

from fxcache.checks import require_integer, require_number
from fxcache.forecasts import Ramp
from fxcache.policies.policy import Caches, Policy
from fxcache.step import Decision, Step, known_length


@dataclass(frozen=True)
class FasterCache(Policy):
    """Attention outputs are computed every ``interval`` steps after ``first``, else extrapolated.

    FasterCache (2410.19355, equation 4): F ≈ F_a + (F_a − F_b) · w, a and b being the last two
    steps that computed it; w grows linearly over the run, from 0 to ``most``. Everything else is
    computed at every step. The growth needs the run's length.

    Raises ConfigError for an interval below 1, or a weight that is no number from 0.
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
        known_length(type(self).__name__, step)
        after = step.index - max(self.first - 1, 0)
        return Decision(after % self.interval == 0, f"every {self.interval} steps")

    @property
    def default_forecast(self) -> Ramp:
        return Ramp(most=self.most)
