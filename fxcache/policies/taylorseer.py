"""TaylorSeer: forecast what is cached instead of reusing it as it is."""

from dataclasses import dataclass, field

from fxcache.checks import require_integer
from fxcache.forecasts import Taylor
from fxcache.forecasts.forecast import MAX_ORDER
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class TaylorSeer(Policy):
    """Refresh every ``interval`` steps, and extrapolate between them by a Taylor series.

    TaylorSeer (2503.06923, equations 2 and 3). The first three steps refresh, so that there are
    differences to extrapolate by.

    Args:
        interval: Steps from one refresh to the next, 1 or more.
        order: Of the Taylor series, 1 to 4; 0 reuses what is cached as it is.

    Raises:
        ConfigError: An option has an impossible value.
    """

    interval: int = 4
    order: int = 2
    first: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)
        require_integer(self, "order", 0, MAX_ORDER)

    @property
    def default_forecast(self) -> Taylor | None:
        return Taylor(self.order) if self.order else None

    def scheduled(self, step: Step) -> Decision:
        after = step.index - max(self.first - 1, 0)
        return Decision(after % self.interval == 0, f"every {self.interval} steps")
