"""Tests forecasts: their values, and that they read no values of another run."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from fxcache.codecs.history import History, in_neighbours
from fxcache.forecasts import Taylor
from fxcache.policies import Explicit, FirstBlock, TaylorSeer, Uniform
from fxcache.runtime.feature_cache import FeatureCache
from tests import tiny
from tests.loops import refreshes, sample
from tests.runtime.stored import store, stored

pytestmark = pytest.mark.usefixtures("shared_captures")

POLICY = TaylorSeer(interval=3)
SECOND = History(Taylor(2))


def test_the_last_refreshes_are_stored_at_any_distance():
    cache = FeatureCache()
    for step in (0, 2, 5):
        store(cache, torch.tensor([float(step**2)]), step, SECOND, fresh=step == 0)
    assert [float(t) for t in stored(cache)] == [25, 4, 0]
    entry = cache.entries[0]
    assert (entry.age(7), entry.steps) == (2, (5, 2, 0))
    store(cache, torch.tensor([9.0]), 8, SECOND, fresh=False)
    assert ([float(t) for t in stored(cache)], entry.steps) == ([9, 25, 4], (8, 5, 2))
    store(cache, torch.tensor([1.0]), 0, SECOND)
    assert [float(t) for t in stored(cache)] == [1, 1, 1], "a first value has no differences"
    assert entry.steps == (0,)


def test_divided_differences_are_expressed_in_neighbours():
    """The values t² at 0, 2, 5 have the differences 21/3 and 4/2, with their difference over 3."""
    first, second = in_neighbours((1.0, 0.0), (5, 2, 0)), in_neighbours((0.0, 1.0), (5, 2, 0))
    assert [c[0] * 21 + c[1] * 4 for c in (first, second)] == pytest.approx([7, 5 / 3])
    assert in_neighbours((1.0, 1.0), (5, 2)) == (1 / 3, 0), "what two refreshes can tell"
    assert in_neighbours((1.0, 1.0), (5,)) == (0, 0)


def test_buffers_of_a_history_keep_their_addresses():
    cache = FeatureCache()
    store(cache, torch.ones(3), 0, SECOND)
    before = [t.data_ptr() for t in stored(cache)]
    store(cache, torch.zeros(3), 1, SECOND, fresh=False)
    store(cache, torch.zeros(3), 0, SECOND)
    assert [t.data_ptr() for t in stored(cache)] == before


def test_bytes_count_the_history():
    unet = fxcache.optimize(tiny.small_unet(), policy=Uniform(5), forecast=Taylor(2))
    sample(unet, **tiny.inputs())
    report = fxcache.report(unet)
    assert report.cached_bytes == 3 * report.captures[0].cut["cache_bytes"]


def test_a_second_run_does_not_extrapolate_the_first():
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    sample(unet, **tiny.inputs(seed=1))
    alone = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    expected = sample(alone, **tiny.inputs(seed=2))
    assert torch.equal(sample(unet, **tiny.inputs(seed=2)), expected)
    assert refreshes(unet) == [[0, 1, 2, 5, 8]] * 2


@torch.no_grad()
def test_another_prompt_restarts_the_history():
    policy = Explicit(steps=(0, 2))
    unet = fxcache.optimize(tiny.small_unet(), policy=policy, forecast=Taylor(1))
    first, second = tiny.inputs(seed=1), tiny.inputs(seed=2)
    with fxcache.session(unet, key="request"):
        unet(timestep=900, **first)
        unet(timestep=800, **first)
        unet(timestep=700, **first)
        unet(timestep=600, **second)
        reused = unet(timestep=500, **second).sample
    alone = fxcache.optimize(tiny.small_unet(), policy=Explicit(steps=(0,)))
    with fxcache.session(alone):
        alone(timestep=600, **second)
        expected = alone(timestep=500, **second).sample
    assert refreshes(unet) == [[0, 2, 3]]
    assert torch.equal(reused, expected), "one refresh: nothing to extrapolate from"


@pytest.mark.usefixtures("clean_dynamo")
def test_two_graphs_serve_every_age():
    expected = sample(fxcache.optimize(tiny.small_unet(), policy=POLICY), 20, **tiny.inputs())
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    unet.compile(backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(sample(unet, 20, **tiny.inputs()), expected)
    assert counter.frame_count == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_forecasts_keep_the_dtype(dtype):
    unet = fxcache.optimize(tiny.small_unet().to(dtype), policy=POLICY)
    inputs = {k: v.to(dtype) for k, v in tiny.inputs().items()}
    assert sample(unet, **inputs).dtype == dtype


def test_high_orders_are_refused():
    with pytest.raises(fxcache.ConfigError, match="1 to 4"):
        Taylor(order=5)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("policy", [TaylorSeer(3), FirstBlock(1e6, max_reuses=2), Uniform(3)])
@torch.no_grad()
def test_a_warm_up_call_does_not_belong_to_the_run(policy):
    """After a warm-up at a low timestep, only the third call shows that the second began a run."""
    inputs, found = tiny.inputs(), []
    for warm_up in (False, True):
        unet = fxcache.optimize(tiny.small_unet(), policy=policy)
        text, latents = inputs["encoder_hidden_states"], inputs["sample"]
        if warm_up:
            unet(latents, 1, text)
        for timestep in range(900, 100, -80):
            latents = latents - 0.05 * unet(latents, timestep, text).sample
        found.append((latents, refreshes(unet)[-1]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
