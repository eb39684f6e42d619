"""Uniform 1:N caching."""

from dataclasses import dataclass

from fxcache.checks import require_integer
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class Uniform(Policy):
    """Refresh at every step s with s mod N = 0: ⌈T/N⌉ of T steps (DeepCache, 2312.00858, 3.3)."""

    interval: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)

    def scheduled(self, step: Step) -> Decision:
        refresh = step.index % self.interval == 0
        return Decision(refresh, f"every {self.interval} steps")
