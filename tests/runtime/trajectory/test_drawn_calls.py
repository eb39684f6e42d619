"""Tests that no call reads another caller's values, with random loops that take turns."""

import pytest

from fxcache.runtime.trajectory.store import TrajectoryStore
from tests.runtime.drawn.world import draw, draw_in_threads

CALLS = 400


@pytest.mark.sweep(2)
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
@pytest.mark.parametrize("seed", range(3))
def test_loops_in_turns_are_exact(seed):
    drawn = draw(CALLS, seed)
    assert drawn.reuses > drawn.refreshes, "most calls reuse"
    assert drawn.extra_refreshes < CALLS / 20


@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_the_fast_path_equals_the_full_attribution(monkeypatch):
    short = draw(CALLS, seed=3)
    monkeypatch.setattr(TrajectoryStore, "_plain_step", lambda *_: None)
    assert draw(CALLS, seed=3) == short


@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_loops_in_threads():
    drawn = draw_in_threads(CALLS)
    assert drawn.reuses > drawn.refreshes
