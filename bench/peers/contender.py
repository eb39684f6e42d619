"""What a contender is, and how thresholds are chosen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.peers.counting import computed, flops_of
from bench.peers.subject import Ask, Live, Subject

Attach = Callable[[Subject, Ask], AbstractContextManager[Live]]

FIRST_BLOCK_RULE = "first block"
TRIALS = 7
LOWEST, HIGHEST = 1e-3, 4.0  # thresholds


@dataclass(frozen=True)
class Contender:
    """A way to run a model.

    Attributes:
        name: The name in the tables.
        package: The distribution that does the work.
        attach: Changes a subject's model inside a block.
        twin: The name of fxcache's contender that follows the same rule, if there is one.
    """

    name: str
    package: str
    attach: Attach
    twin: str = ""


# The threshold for each rule, subject and interval: contenders with one rule share it.
_fitted: dict[tuple[str, str, Ask], float] = {}


def fit_threshold(
    rule: str, subject: Subject, ask: Ask, attach: Callable[[float], AbstractContextManager[Live]]
) -> float:
    """Return the threshold with which a run computes about as many steps as asked for.

    A higher threshold computes fewer. The threshold is the geometric middle of an interval that is
    halved ``TRIALS`` times.

    Args:
        rule: What the threshold is compared with. Contenders with the same rule share thresholds.
        subject: The subject, whose model the contender may change.
        ask: The number of steps to compute.
        attach: Attaches the contender with a threshold.
    """
    key = (rule, subject.name, ask)
    if key not in _fitted:
        _fitted[key] = searched(subject, ask, attach)
    return _fitted[key]


def searched(
    subject: Subject, ask: Ask, attach: Callable[[float], AbstractContextManager[Live]]
) -> float:
    lowest, highest = LOWEST, HIGHEST
    best, least = highest, float("inf")
    for _ in range(TRIALS):
        middle = (lowest * highest) ** 0.5
        with attach(middle) as live:
            found = len(computed(flops_of(subject, live, ask)))
        error = abs(found - len(ask.refreshed))
        if error < least:
            best, least = middle, error
        if not error:
            break
        lowest, highest = (middle, highest) if found > len(ask.refreshed) else (lowest, middle)
    return best
