"""TaylorSeer: forecast what is cached instead of reusing it as it is."""

from dataclasses import dataclass, field

from fxcache.schedule.checks import require_integer
from fxcache.schedule.policy import Decision, Policy, Step


@dataclass(frozen=True)
class Taylor(Policy):
    """Refresh every ``interval`` steps; between them extrapolate what is cached.

    TaylorSeer (2503.06923, equations 2 and 3): k steps after a refresh a feature is taken as
    Σ_i Δⁱ F · kⁱ / (i! Nⁱ), i from 0 to ``forecast_order``, with Δⁱ the finite differences between
    refreshes N steps apart. The first three steps are refreshed, so that there are differences.
    """

    interval: int = 4
    forecast_order: int = field(default=2, kw_only=True)
    first: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)

    def scheduled(self, step: Step) -> Decision:
        after = step.index - max(self.first - 1, 0)
        return Decision(after % self.interval == 0, f"every {self.interval} steps")
