"""Tests the grammar of conditions on sizes against sympy."""

from itertools import product

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, Mod

import fxcache
from fxcache.deploy.expressions import from_json, to_json

a, b = sympy.symbols("s0 s1", integer=True, positive=True)
CONDITIONS = [
    a > b,
    sympy.Le(a + 2 * b, 30),
    sympy.Eq(Mod(a, 4), 0),
    sympy.Ne(FloorDiv(a, 3), b),
    sympy.And(a >= 2, sympy.Or(b < 5, sympy.Eq(a, b))),
    sympy.Lt(a**2, 7 * b),
    sympy.Ge(sympy.Max(a, b), sympy.Min(a, 4) + 1),
    sympy.Not(sympy.And(a > 3, b > 3)),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_a_condition_means_the_same_again(condition):
    read = from_json(to_json(condition), {"s0": a, "s1": b}, "a test")
    outcomes = set()
    for first, second in product(range(1, 12), repeat=2):
        values = {a: first, b: second}
        expected = bool(condition.subs(values))
        assert bool(read.subs(values)) is expected, values
        outcomes.add(expected)
    assert outcomes == {True, False}, "a condition that always holds shows nothing"


def test_other_functions_are_refused():
    with pytest.raises(fxcache.ArtifactError, match="cannot be part of an artifact"):
        to_json(sympy.Eq(sympy.sin(a), 0))


@pytest.mark.parametrize("data", ["s2", "1", 1.5, None, ["**", 2, 3], ["+"], {}, [["+"], 1], 2**63])
def test_other_texts_are_refused(data):
    with pytest.raises(fxcache.ArtifactError, match="unknown condition"):
        from_json(data, {"s0": a}, "a test")


def test_a_division_by_zero_does_not_hold():
    assert from_json(["==", ["mod", "s0", 0], 0], {"s0": a}, "a test").subs({a: 4}) is False
