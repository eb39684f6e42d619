"""Compares each policy with its paper's rule, written as the loop that authors publish."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcache.errors import ConfigError, ScheduleError
from fxcache.forecasts import Taylor
from fxcache.policies import (
    BlockCaching,
    FasterCache,
    FirstBlock,
    LearnedRouter,
    MagCache,
    Policy,
    Since,
    SmoothCache,
    TaylorSeer,
    TeaCache,
)
from fxcache.policies.table import merged
from fxcache.policies.teacache import PUBLISHED
from fxcache.step import Step

FLUX = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)


def run(policy: Policy, signal: list[float]) -> list[int]:
    """Return the steps that refresh if the observed value follows ``signal``."""
    observes = policy.observes
    reference = signal[0]
    changes: list[float] = []
    found: list[int] = []
    for index, value in enumerate(signal):
        if index:
            changes.append(abs(value - reference) / abs(reference) if reference else math.nan)
        last = found[-1] if found else 0
        if policy.decide(Step(index, len(signal), last, tuple(changes))).refresh:
            found.append(index)
            changes.clear()
            reference = value
        if observes and observes.since is Since.STEP:
            reference = value
    return found


def published_teacache(signal: list[float], threshold: float, polynomial: tuple[float, ...]):
    total, computed = 0.0, []
    for step, value in enumerate(signal):
        if step in (0, len(signal) - 1):
            calculate, total = True, 0.0
        else:
            change = abs(value - signal[step - 1]) / abs(signal[step - 1])
            powers = range(len(polynomial) - 1, -1, -1)
            estimate = sum(c * change**p for c, p in zip(polynomial, powers, strict=True))
            total += max(estimate, 0.0)
            calculate = not total < threshold
            total = 0.0 if calculate else total
        if calculate:
            computed.append(step)
    return computed


signals = st.lists(st.floats(0.1, 10), min_size=2, max_size=60)


@given(signals, st.floats(0, 2), st.sampled_from([FLUX, (1.0, 0.0), (-3.0, 2.0, 0.1)]))
def test_teacache(signal, threshold, polynomial):
    policy = TeaCache(threshold, polynomial)
    assert run(policy, signal) == published_teacache(signal, threshold, polynomial)


def test_teacache_with_fluxs_coefficients_on_a_given_sequence():
    """Worked by hand: changes of 0.1 add 0.187…, so that the third of them exceeds 0.4."""
    at_a_tenth = 0.0498651651 - 0.283781631 + 0.558554382 - 0.382021401 + 0.264230861
    assert TeaCache.published("flux").estimate(0.1) == pytest.approx(at_a_tenth)
    assert 2 * at_a_tenth < 0.45 < 3 * at_a_tenth
    signal = [1.1**s for s in range(12)]
    assert run(TeaCache.published("flux", threshold=0.45), signal) == [0, 3, 6, 9, 11]


def test_teacaches_polynomials_do_not_go_negative():
    wan = TeaCache.published("wan2.1-t2v-14b")
    assert wan.estimate(0.001) == 0
    assert (wan.first, wan.last) == (2, 2)


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_coefficients_are_of_degree_four(model):
    assert len(TeaCache.published(model).coefficients) == 5


def test_wrong_coefficients_are_refused():
    with pytest.raises(ConfigError, match="calibrate"):
        TeaCache.published("stable-diffusion")


@given(signals, st.floats(0, 2), st.one_of(st.none(), st.integers(0, 5)), st.integers(1, 5))
def test_first_block(signal, threshold, limit, warm_up):
    policy = FirstBlock(threshold, limit, first=warm_up)
    reference, reused, computed = 0.0, 0, []
    for step, value in enumerate(signal):
        near = step >= warm_up and abs(value - reference) / abs(reference) <= threshold
        if near and (limit is None or reused < limit):
            reused += 1
            continue
        reference, reused = value, 0
        computed.append(step)
    assert run(policy, signal) == computed


@given(st.lists(st.floats(0.8, 1.2), min_size=1, max_size=40), st.integers(1, 60), st.floats(0, 1))
def test_magcache(ratios, steps, threshold):
    policy = MagCache(tuple(ratios), threshold)
    product, drift, reused, computed = 1.0, 0.0, 0, []
    for step in range(steps):
        if step >= int(0.2 * steps + 0.5):
            scale = (len(ratios) - 1) / (steps - 1) if steps > 1 else 0
            product *= ratios[round(step * scale)]
            drift += abs(1 - product)
            reused += 1
            if step and drift <= threshold and reused <= 3:
                continue
            product, drift, reused = 1.0, 0.0, 0
        computed.append(step)
    assert run(policy, [1.0] * steps) == computed


def test_taylor_refreshes_three_steps_and_then_every_nth():
    assert run(TaylorSeer(interval=4), [1.0] * 16) == [0, 1, 2, 6, 10, 14]
    assert TaylorSeer().default_forecast == Taylor(2)


def test_block_caching_worked_by_hand():
    """Sums since the last computation, δ = 0.5; what exceeds it is computed: marked with *.

    a: –* .2 .4 .6* .3 .4 .6*        b: –* .6* .1 .2 .3 .4 .5        c: –* 0 0 0 0 0 2*
    """
    policy = BlockCaching(
        0.5,
        changes={
            "a": (0.0, 0.2, 0.2, 0.2, 0.3, 0.1, 0.2),
            "b": (0.0, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1),
            "c": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0),
        },
    )
    rows = ["".join(sorted(row)) for row in policy.rows]
    assert rows == ["abc", "b", "", "a", "", "", "ac"]
    decisions = [policy.decide(Step(s, 7)) for s in range(7)]
    assert [d.refresh for d in decisions] == [True] + [False] * 6
    assert decisions[6].recompute == {"a", "c"}


changes = st.lists(st.floats(0, 1), min_size=12, max_size=12)


@given(st.dictionaries(st.sampled_from("abcdef"), changes, min_size=1), st.floats(0, 3))
def test_block_caching(table, threshold):
    policy = BlockCaching(threshold, changes=table, max_variants=99)
    for block, series in table.items():
        computed, since = [0], 0
        for step in range(1, 12):
            if sum(series[since + 1 : step + 1]) > threshold + 1e-9:
                computed.append(step)
                since = step
        found = [s for s, row in enumerate(policy.rows) if block in row]
        if all(
            abs(sum(series[a + 1 : b + 1]) - threshold) > 1e-6
            for a in range(12)
            for b in range(a, 12)
        ):
            assert found == computed


@given(
    st.lists(st.lists(st.floats(0, 0.3), max_size=5), min_size=2, max_size=30), st.floats(0, 0.3)
)
def test_smoothcache(errors, alpha):
    policy = SmoothCache(alpha, errors={"attn1": errors}, max_variants=99)
    computed = [0]
    for step in range(1, len(errors)):
        gap = step - computed[-1]
        if not (gap <= len(errors[step]) and errors[step][gap - 1] < alpha):
            computed.append(step)
    assert [s for s, row in enumerate(policy.rows) if row] == computed


def test_learned_router_applies_its_threshold():
    with pytest.raises(ConfigError, match="no step that computes everything"):
        LearnedRouter(1.0, scores={"a": (1, 0.5)})
    policy = LearnedRouter(0.1, scores={"a": (1, 0.11, 0.1, 0.0), "b": (1, 0.0, 1.0, 0.0)})
    assert [sorted(row) for row in policy.rows] == [["a", "b"], ["a"], ["b"], []]


rows = st.lists(st.frozensets(st.sampled_from("abcdef")), min_size=1, max_size=40)


@given(rows, st.integers(1, 8))
def test_merged_schedules_only_compute_more(table, limit):
    found = merged(table, limit)
    assert len(set(found)) <= limit
    assert all(row <= union for row, union in zip(table, found, strict=True))
    assert merged(table, 99) == table


@pytest.mark.parametrize("steps", [None, 6, 8])
def test_tables_refuse_runs_of_other_lengths(steps):
    policy = BlockCaching(changes={"a": (0.0,) * 7})
    with pytest.raises(ScheduleError, match="7 steps" if steps else "how many steps"):
        policy.decide(Step(1, steps))


anything = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1e300, -1.0, math.nan, math.inf, -math.inf]),
)
policies = st.one_of(
    st.builds(TeaCache, st.floats(0, 5), st.sampled_from([FLUX, (0.0,), (1e200, 0.0)])),
    st.builds(FirstBlock, st.floats(0, 5), st.one_of(st.none(), st.integers(0, 4))),
    st.builds(TaylorSeer, st.integers(1, 9)),
    st.builds(MagCache, st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.floats(0, 9)),
    st.builds(BlockCaching, st.floats(0, 9), changes=st.just({"a": [0.1] * 20, "b": [0.3] * 20})),
)


@given(policies, st.lists(anything, min_size=20, max_size=20))
def test_any_policy_survives_any_signal(policy, changes):
    last, seen = 0, []
    for index, change in enumerate(changes):
        if index:
            seen.append(change)
        decision = policy.decide(Step(index, len(changes), last, tuple(seen)))
        assert decision.refresh or index, "the first step of a run refreshes"
        if policy.observes and seen and not math.isfinite(change):
            assert decision.refresh or change == -math.inf
        if decision.refresh:
            last, seen = index, []
        limit = getattr(policy, "max_reuses", None)
        assert limit is None or index - last <= limit


def test_fastercache_extrapolates_with_growing_weight():
    policy = FasterCache(first=4)
    assert run(policy, [1.0] * 12) == [0, 1, 2, 3, 5, 7, 9, 11]
    forecast = policy.default_forecast
    assert forecast.weights(1, 2, Step(4, 16)) == (2 * 0.25,)
    assert forecast.weights(1, 2, Step(12, 16)) == (2 * 0.75,)
    with pytest.raises(ScheduleError, match="how many steps"):
        policy.decide(Step(5, None))
