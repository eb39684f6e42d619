"""Compares the dynamic programme with all possible schedules."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxcache.tuning.solve import UNITS, solve

STEPS, GAPS = 6, 3


def brute(errors: dict[str, torch.Tensor], costs: dict[str, float], budget: float) -> float:
    """Return the least error of any schedule within ``budget``."""
    best = math.inf
    for rest in itertools.product([None, *errors], repeat=STEPS - 1):
        spent, gap, error = UNITS, 0, 0.0
        for step, cut in enumerate(rest, start=1):
            gap = 0 if cut is None else gap + 1
            spent += UNITS if cut is None else math.ceil(UNITS * costs[cut] - 1e-9)
            if cut is not None:
                error += float(errors[cut][step, gap - 1]) if gap <= GAPS else math.inf
        if spent <= UNITS * budget + 1e-9:
            best = min(best, error)
    return best


tables = st.lists(
    st.lists(st.floats(0, 10), min_size=GAPS, max_size=GAPS), min_size=STEPS, max_size=STEPS
)


@given(
    st.dictionaries(st.sampled_from("abc"), tables, min_size=1, max_size=2),
    st.lists(st.floats(0.01, 9), min_size=3, max_size=3),
    st.floats(1, 7),
)
def test_it_finds_the_best_of_all_schedules(drawn, numbers, budget):
    errors = {cut: torch.tensor(table, dtype=torch.float64) for cut, table in drawn.items()}
    compare(errors, dict(zip("abc", numbers, strict=True)), budget)


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_best_of_mixed_schedules(seed):
    """Costs and errors vary, so that the best schedule mixes cuts."""
    torch.manual_seed(seed)
    errors = {cut: torch.rand(STEPS, GAPS, dtype=torch.float64) for cut in "ab"}
    compare(errors, {"a": 0.05 + 0.4 * float(torch.rand(())), "b": 0.6}, budget=3.5)


def compare(errors: dict[str, torch.Tensor], costs: dict[str, float], budget: float) -> None:
    expected = brute(errors, costs, budget)
    found = solve(errors, costs, budget)
    if math.isinf(expected):
        assert found is None
        return
    assert found is not None
    assert found.error == pytest.approx(expected)
    assert found.cost <= budget + 1e-9
    gap, error = 0, 0.0
    for step, cut in enumerate(found.reused):
        gap = 0 if cut is None else gap + 1
        error += float(errors[cut][step, gap - 1]) if cut else 0.0
    assert error == pytest.approx(found.error)
    assert found.reused[0] is None


def test_a_budget_below_one_step_has_no_schedule():
    assert solve({"a": torch.zeros(4, 2)}, {"a": 0.1}, 0.5) is None
