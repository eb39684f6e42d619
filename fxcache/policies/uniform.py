"""Uniform 1:N caching."""

from dataclasses import dataclass

from fxcache.checks import require_integer
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class Uniform(Policy):
    """Refresh at regular intervals.

    Step s refreshes if s mod N = 0, where N is the interval: ⌈T/N⌉ of T steps. This is the 1:N
    caching of DeepCache (arXiv 2312.00858, section 3.3).

    Args:
        interval: Steps from one refresh to the next, 1 or more. With 1, every step refreshes.

    Raises:
        ConfigError: The interval is not a whole number of at least 1.
    """

    interval: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)

    def scheduled(self, step: Step) -> Decision:
        """Refresh at multiples of the interval."""
        refresh = step.index % self.interval == 0
        return Decision(refresh, f"every {self.interval} steps")
