"""Ratios of times within one process, beside the same ratios of FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

from fxcache.gate.timing import ORIGINAL, REFRESH, REUSE, START, Round

CONFIDENCE = 0.95
CACHED = (START, REFRESH, REUSE)


@dataclass(frozen=True)
class Ratio:
    """A ratio of times, and what FLOPs let expect.

    Attributes:
        time: The median over rounds.
        low: The lower bound of the median, with a confidence of 95 %.
        high: The upper bound.
        flops: The same ratio in FLOPs.
        rounds: The number of rounds.
    """

    time: float
    low: float
    high: float
    flops: float
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Describe the ratio as JSON can hold it."""
        return {name: float(f"{value:.5g}") for name, value in vars(self).items()}


def ratios_of(rounds: Sequence[Round]) -> dict[str, Ratio]:
    """Return the ratios of the rounds by name.

    ``reuse/full`` is a reuse step divided by a refresh step, ``cached/original`` a run with fxcache
    divided by one without it, and ``start/step`` the first call of a run divided by a call without
    fxcache. A ratio is missing if the runs have no such call.
    """
    last = rounds[-1]
    found = {
        "cached/original": ratio_of(
            [sum(r.times(*CACHED)) / sum(r.times(ORIGINAL)) for r in rounds],
            last.flops(*CACHED) / last.full_flops(*CACHED),
        ),
        "start/step": ratio_of(
            [median(r.times(START)) / median(r.times(ORIGINAL)) for r in rounds],
            last.flops(START) / last.full_flops(START),
        ),
    }
    if last.times(REUSE) and last.times(REFRESH):
        found["reuse/full"] = ratio_of(
            [median(r.times(REUSE)) / median(r.times(REFRESH)) for r in rounds],
            last.flops(REUSE) / last.flops(REFRESH),
        )
    return found


def ratio_of(values: Sequence[float], flops: float) -> Ratio:
    """Return the median of ``values`` and its bounds."""
    ordered = sorted(values)
    rank = lower_rank(len(ordered))
    return Ratio(median(ordered), ordered[rank], ordered[-1 - rank], flops, len(ordered))


def lower_rank(count: int) -> int:
    """Return the index of the value that bounds the median of ``count`` values from below.

    Each value is above the median with probability one half, so that the number of values below it
    is binomial. Both bounds together miss the median with a probability of at most 5 %.
    """
    missed, rank = 0.0, 0
    while rank < count // 2:
        missed += comb(count, rank) / 2**count
        if 2 * missed > 1 - CONFIDENCE:
            break
        rank += 1
    return max(0, rank - 1)
