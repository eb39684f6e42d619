"""First-Block Cache: refresh once the first block's contribution has changed."""

from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.policies.policy import Observation, Policy, Signal, Since
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class FirstBlock(Policy):
    """Reuse while the sum that the first block adds stays close to that of the last refresh.

    First-Block Cache, as in ParaAttention and diffusers. Step s reuses if

        ‖r_s − r_a‖₁ / ‖r_a‖₁ ≤ threshold

    where r_s is the sum that the first block adds to the latent's stream at step s, and a is the
    last step that refreshed. Every step computes the first block, and reads one number from the
    device.

    Args:
        threshold: The largest relative change at which a step reuses, 0 or more.
        max_reuses: The number of consecutive steps that may reuse, 0 or more. None for no limit.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    threshold: float = 0.08
    max_reuses: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "threshold", least=0)
        if self.max_reuses is not None:
            require_integer(self, "max_reuses", 0)

    @property
    def observes(self) -> Observation:
        """The sum that the first block adds, compared with the last refresh."""
        return Observation((Signal.FIRST_BLOCK,), Since.REFRESH)

    def scheduled(self, step: Step) -> Decision:
        """Refresh if the change exceeds the threshold, or enough steps in a row reused."""
        if self.max_reuses is not None and step.index - step.last_refresh > self.max_reuses:
            return Decision(True, "reused often enough")
        near = bool(step.changes) and step.changes[-1] <= self.threshold
        return Decision(not near, "first block's change")
