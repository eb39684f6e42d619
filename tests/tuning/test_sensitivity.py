"""How the error of one step shows in the result: measured by few runs, and interpolated."""

import math

import pytest

import fxcache
from fxcache.tuning.sensitivity import interpolated, sensitivity
from fxcache.tuning.trial import Trial


def test_sensitivity_is_interpolated_in_its_logarithm():
    found = interpolated([2, 4], [1.0, 100.0], 6)
    assert found.tolist() == pytest.approx([1, 1, 1, 10, 100, 100])


def test_probes_with_nan_are_ignored():
    local = [math.inf, *[0.01] * 5]

    def tried(policy: fxcache.Explicit) -> Trial:
        return Trial(policy, "cut", 1.5, math.nan if 1 in policy.steps else 30.0)

    def broken(policy: fxcache.Explicit) -> Trial:
        return Trial(policy, "cut", 1.5, math.nan)

    assert sensitivity(local, 3, tried).flatten().tolist() == pytest.approx([0.1] * 6)
    with pytest.raises(fxcache.CutError, match="infinities or NaN"):
        sensitivity(local, 3, broken)
