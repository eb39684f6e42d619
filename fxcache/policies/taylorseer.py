"""TaylorSeer: extrapolates cached values instead of reusing them unchanged."""

from dataclasses import dataclass, field

from fxcache.checks import require_integer
from fxcache.forecasts import Taylor
from fxcache.forecasts.forecast import MAX_ORDER
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class TaylorSeer(Policy):
    """Refresh every ``interval`` steps, and extrapolate between them by a Taylor series.

    TaylorSeer (arXiv 2503.06923, equations 2 and 3). The first three steps refresh, so that there
    are differences to extrapolate by. See ``Taylor`` for the series.

    Args:
        interval: Steps from one refresh to the next, 1 or more.
        order: The order of the Taylor series, 0 to 4. With 0, cached values are reused as they are.

    Raises:
        ConfigError: An option has a value that it cannot have.
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
        """The Taylor series; None for order 0."""
        return Taylor(self.order) if self.order else None

    def scheduled(self, step: Step) -> Decision:
        """Refresh every ``interval`` steps, counted from the last of the first steps."""
        after = step.index - max(self.first - 1, 0)
        return Decision(after % self.interval == 0, f"every {self.interval} steps")
