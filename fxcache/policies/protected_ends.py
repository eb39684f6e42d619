"""Uniform caching between the ends of a run, which always refresh: the default policy."""

from dataclasses import dataclass
from math import ceil

from fxcache.checks import require_integer, require_number
from fxcache.policies.policy import FIRST_STEPS, LAST_STEPS, Policy
from fxcache.step import Decision, Step, known_length


@dataclass(frozen=True)
class ProtectedEnds(Policy):
    """Refresh at both ends of a run, and at regular intervals in between.

    In a run of T steps, the first ⌈start·T⌉ steps and the last ⌈end·T⌉ steps refresh. Between them,
    every N-th step refreshes, where N is the interval. The first steps lay out the picture, and no
    later step corrects an error of the last ones. At most ⌈gap·T⌉ steps in a row reuse: in a run of
    few steps each step changes much, and long gaps are worse than fewer steps
    (``python -m bench.few_steps``).

    If nothing tells the run's length, fxcache warns, and only the first step and every N-th step
    refresh.

    Args:
        interval: Steps from one refresh to the next, 1 or more. With 1, every step refreshes.
        start: The share of the run at its start that refreshes, from 0 to 1.
        end: The share of the run at its end that refreshes, from 0 to 1.
        gap: The greatest share of the run that may pass without a refresh, from 0 to 1.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    interval: int = 3
    start: float = 0.1
    end: float = 0.15
    gap: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self, "interval", 1)
        require_number(self, "start", least=0, most=1)
        require_number(self, "end", least=0, most=1)
        require_number(self, "gap", least=0, most=1)

    def scheduled(self, step: Step) -> Decision:
        """Refresh at both ends, and at every N-th step after the first ones.

        Raises:
            UnknownLengthError: Nothing tells the run's length.
        """
        length = known_length(type(self).__name__, step)
        first = max(ceil(self.start * length), self.first, 1)
        if step.index < first:
            return Decision(True, FIRST_STEPS)
        if step.index >= length - ceil(self.end * length):
            return Decision(True, LAST_STEPS)
        interval = min(self.interval, 1 + ceil(self.gap * length))
        return regular(step.index - first + 1, interval)

    def without_length(self, step: Step) -> Decision:
        """Refresh at every N-th step: no step is known to be among the last."""
        return regular(step.index, self.interval)


def regular(index: int, interval: int) -> Decision:
    """Return the decision to refresh at multiples of the interval."""
    return Decision(index % interval == 0, f"every {interval} steps")
