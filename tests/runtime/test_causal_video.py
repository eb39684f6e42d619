"""Tests causal video models with a rolling cache of keys and values."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.causal import (
    SLOTS,
    TOKENS,
    CausalVideo,
    RollingCache,
    draw_chunk,
    draw_video,
    values_of,
)
from tests.engines import optimized_engine
from tests.loops import refreshes

IN_FULL = "it fills a cache object"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*{IN_FULL}:fxcache.FxcacheWarning")


def optimized(interval: int) -> Any:
    return fxcache.optimize(CausalVideo().eval(), fxcache.Uniform(interval))


def equal(one: Any, other: Any) -> bool:
    return all(map(torch.equal, values_of(one), values_of(other)))


def test_a_growing_and_then_rolling_cache_is_exact():
    plain, cache = RollingCache(), RollingCache()
    video = draw_video(CausalVideo().eval(), plain, chunks=4)
    assert torch.equal(draw_video(optimized(1), cache, chunks=4), video)
    assert equal(cache, plain)
    assert values_of(cache)[0].shape[1] == SLOTS


def test_a_chunk_reuses_and_the_commit_runs_in_full():
    model = optimized(3)
    first = draw_video(model, RollingCache(SLOTS))
    assert refreshes(model) == [[0, 3, 6], [0]] * 3
    assert len(optimized_engine(model).captures) == 2
    assert torch.equal(draw_video(model, RollingCache(SLOTS)), first)
    assert not torch.equal(draw_video(CausalVideo().eval(), RollingCache(SLOTS)), first)


def test_nothing_crosses_the_edge_of_a_chunk():
    """A chunk after others has the bits of the same chunk alone, from the same cache."""
    model, cache = optimized(3), RollingCache(SLOTS)
    for chunk in range(3):
        alone = copy.deepcopy(cache)
        assert torch.equal(draw_chunk(model, cache, chunk), draw_chunk(optimized(3), alone, chunk))
        assert equal(cache, alone)


class Overwriting(RollingCache):
    """Has slots for the current chunk, which every call overwrites, as in Self-Forcing."""

    def add(self, index: int, keys: Tensor, values: Tensor) -> None:
        layer = self.layers[index]
        layer.keys[:, -TOKENS:], layer.values[:, -TOKENS:] = keys, values


class WritesAlways(nn.Module):
    """Commits at every call. Only the last one of a chunk stays."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CausalVideo()

    def forward(
        self, sample: Tensor, timestep: Tensor, places: Tensor, cache: Any, commit: bool = False
    ) -> Tensor:
        return self.model(sample, timestep, places, cache, commit=True)


def test_a_cache_that_every_call_overwrites_is_exact_and_in_full():
    plain, cache = Overwriting(SLOTS), Overwriting(SLOTS)
    video = draw_video(WritesAlways().eval(), plain)
    model = fxcache.optimize(WritesAlways().eval(), fxcache.Uniform(3))
    with pytest.warns(fxcache.FxcacheWarning, match=IN_FULL):
        assert torch.equal(draw_video(model, cache), video)
    assert equal(cache, plain)
