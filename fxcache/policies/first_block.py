"""First-Block Cache: refresh once the first block's contribution has changed."""

from dataclasses import dataclass

from fxcache.checks import require_integer, require_number
from fxcache.policies.policy import Observation, Policy, Signal, Since
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class FirstBlock(Policy):
    """Reuse while ‖r_s − r_a‖₁ / ‖r_a‖₁ ≤ ``threshold``, and ``max_reuses`` times in a row at most.

    r_s is what the first block adds to the latent's stream at step s, a the last step that
    refreshed (First-Block Cache of ParaAttention and diffusers). ``max_reuses=None``: no limit.

    Raises ConfigError for a threshold that is no number from 0, or a limit that is no int from 0.
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
        return Observation((Signal.FIRST_BLOCK,), Since.REFRESH)

    def scheduled(self, step: Step) -> Decision:
        if self.max_reuses is not None and step.index - step.last_refresh > self.max_reuses:
            return Decision(True, "reused often enough")
        near = bool(step.changes) and step.changes[-1] <= self.threshold
        return Decision(not near, "first block's change")
