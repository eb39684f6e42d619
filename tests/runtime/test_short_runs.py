"""Tests that a run too short to reuse anything is reported, and one longer than its session."""

import warnings

import pytest

import fxcache
from tests.plain import denoised, dit

TOO_SHORT = "a run of 2 steps is too short to reuse"


def test_a_run_without_a_step_that_may_reuse_is_reported():
    model = fxcache.optimize(dit())
    with pytest.warns(fxcache.FxcacheWarning, match=TOO_SHORT):
        denoised(model, steps=2)
    assert TOO_SHORT in str(fxcache.report(model))


@pytest.mark.parametrize(
    ("policy", "steps"), [(None, 3), (fxcache.Uniform(1), 2), (fxcache.Uniform(2), 2)]
)
def test_a_run_that_reuses_or_need_not_is_not(policy, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoised(fxcache.optimize(dit(), policy), steps=steps)


def test_a_run_with_more_calls_than_its_session_says_is_reported():
    model = fxcache.optimize(dit())
    session = fxcache.session(model, num_steps=3)
    with pytest.warns(fxcache.FxcacheWarning, match="num_steps=3"), session:
        denoised(model, steps=5)
    assert "more calls than its session says" in str(fxcache.report(model))
