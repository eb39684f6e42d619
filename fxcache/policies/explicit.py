"""A schedule given as a list."""

from dataclasses import dataclass

from fxcache.errors import ConfigError
from fxcache.policies.policy import Policy
from fxcache.step import Decision, Step


@dataclass(frozen=True)
class Explicit(Policy):
    """Refresh at the listed steps, and at the first step of each run.

    Args:
        steps: The steps that refresh, counted from 0, in any order.

    Raises:
        ConfigError: A step is not a whole number of at least 0.
    """

    steps: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = tuple(self.steps) if isinstance(self.steps, list | tuple) else (self.steps,)
        if not all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in steps):
            raise ConfigError(
                f"steps={self.steps!r} are not step numbers",
                where="Explicit",
                remedy="list the steps to refresh, counted from 0: Explicit(steps=(0, 5, 9))",
            )
        object.__setattr__(self, "steps", tuple(sorted(set(steps))))

    def scheduled(self, step: Step) -> Decision:
        """Refresh if the step is listed."""
        return Decision(step.index in self.steps, "listed steps")
