"""Tests the times of calls, their ratios and the bounds of a median."""

from itertools import product

import pytest

import fxcache
from fxcache.gate.advisory import milliseconds, percentile
from fxcache.gate.ratios import lower_rank, ratio_of, ratios_of
from fxcache.gate.timing import ORIGINAL, REFRESH, REUSE, START, CallTime, Round, measure_rounds
from tests.gate.subjects import STEPS, small


@pytest.mark.parametrize("count", [6, 7, 9, 12])
def test_the_bounds_miss_the_median_in_at_most_5_percent(count):
    """Each value is above or below the median with the same chance: all outcomes are tried."""
    rank, missed = lower_rank(count), 0
    for above in product((False, True), repeat=count):
        below = above.count(False)
        # The bounds are the values at ``rank`` from both ends of the sorted ones.
        missed += not rank < below < count - rank
    assert missed / 2**count <= 0.05
    assert rank == 0 or wider_is_needed(count, rank)


def wider_is_needed(count: int, rank: int) -> bool:
    """Return whether the next narrower bounds would miss more often than in 5 % of cases."""
    narrower = [a.count(False) for a in product((False, True), repeat=count)]
    return sum(not rank + 1 < below < count - rank - 1 for below in narrower) / 2**count > 0.05


def test_a_ratio_is_the_median_with_its_bounds():
    found = ratio_of([1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 0.5)
    assert (found.time, found.low, found.high, found.flops, found.rounds) == (5.0, 2.0, 8.0, 0.5, 9)


def test_ratios_are_those_of_the_kinds_of_calls():
    calls = [(ORIGINAL, 10.0, 0, 0)] * 3
    calls += [(START, 20.0, 200, 100), (REUSE, 2.0, 10, 100), (REFRESH, 8.0, 100, 100)]
    times = Round([CallTime(kind, s, s, flops, full) for kind, s, flops, full in calls])
    found = ratios_of([times])
    assert (found["reuse/full"].time, found["reuse/full"].flops) == (0.25, 0.1)
    assert found["cached/original"].time == 1.0
    assert found["cached/original"].flops == pytest.approx(310 / 300)
    assert (found["start/step"].time, found["start/step"].flops) == (2.0, 2.0)


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (1, 1)])
def test_percentiles_are_values_that_were_measured(percent, value):
    assert percentile(range(10, 0, -1), percent) == value


def test_calls_are_timed_by_their_kind():
    rounds = measure_rounds(small(policy=fxcache.Uniform(3)), 2)
    assert len(rounds) == 2
    for times in rounds:
        kinds = [call.kind for call in times.calls]
        cached = [kind for kind in kinds if kind != ORIGINAL]
        assert cached == [START if i == 0 else REUSE if i % 3 else REFRESH for i in range(STEPS)]
        assert kinds.count(ORIGINAL) == STEPS
        assert all(call.wall_s > 0 for call in times.calls)
    assert [r.calls[0].kind for r in rounds] == [ORIGINAL, START], "rounds begin in turns"
    ratio = ratios_of(rounds)["reuse/full"]
    assert 0 < ratio.flops < 0.1
    assert set(milliseconds(rounds)) == {ORIGINAL, REFRESH, REUSE}
