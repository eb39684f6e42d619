"""Tests that one tensor is allocated and written in place, and that reported bytes are correct."""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import fx, nn

import fxcache
from fxcache.codecs.identity import Identity
from fxcache.codecs.layout import fit
from fxcache.rewrite.factory import VariantKey
from fxcache.rewrite.variants import NOTHING
from fxcache.runtime import feature_cache
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.trajectory.store import TrajectoryStore
from tests import tiny
from tests.engines import interrupted, optimized_engine, variants_of
from tests.loops import sample
from tests.runtime.stored import store, stored

pytestmark = pytest.mark.usefixtures("shared_captures")

ONE_TRAJECTORY = fxcache.CacheConfig(max_trajectories=1)


def held(cache: FeatureCache) -> torch.Tensor:
    (buffer,) = stored(cache)
    return buffer


def test_buffers_keep_their_address():
    cache = FeatureCache()
    store(cache, torch.ones(2, 3))
    address = held(cache).data_ptr()
    store(cache, torch.zeros(2, 3))
    assert held(cache).data_ptr() == address
    assert torch.equal(held(cache), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "other",
    [
        torch.ones(1, 3),  # would broadcast
        torch.ones(2, 3, dtype=torch.float64),
        torch.ones(3, 2).t(),
        torch.ones(2, 3, device="meta"),
    ],
)
def test_another_shape_dtype_or_layout_gets_new_buffers(other):
    cache = FeatureCache()
    store(cache, torch.zeros(2, 3))
    store(cache, other, source="another capture")
    found = held(cache)
    assert (found.shape, found.dtype, found.device) == (other.shape, other.dtype, other.device)
    assert found.stride() == other.stride()


def test_entries_are_checked_once_for_each_source_and_run(monkeypatch):
    checked: list[Any] = []
    original = fit

    def counted(*arguments: Any) -> bool:
        checked.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(feature_cache, "fit", counted)
    cache, value = FeatureCache(), torch.ones(2, 3)
    for fresh, source in ((True, 1), (False, 1), (False, 1), (True, 1), (False, 2)):
        store(cache, value, source=source, fresh=fresh)
    assert len(checked) == 2, "the second run, and the second source"


def test_a_later_change_of_the_value_does_not_reach_the_cache():
    value = torch.ones(4)
    cache = FeatureCache()
    store(cache, value)
    value.fill_(9)
    assert torch.equal(held(cache), torch.ones(4))


def test_buffers_made_in_inference_mode_serve_outside_it():
    cache = FeatureCache()
    with torch.inference_mode():
        store(cache, torch.ones(4) + 1)
    store(cache, torch.zeros(4))
    assert not held(cache).is_inference()


def test_one_tensor_is_cached_and_its_bytes_are_reported():
    unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=5))
    for seed in range(4):
        sample(unet, **tiny.inputs(seed=seed))
    gc.collect()
    engine = optimized_engine(unet)
    held = [buffer for t in engine.store.trajectories for buffer in stored(t.cache)]
    assert len(held) == 1, "four requests one after the other need one buffer"
    reported = fxcache.report(unet)
    assert reported.cached_bytes == held[0].untyped_storage().nbytes()
    assert reported.cached_bytes == reported.captures[0].cut["cache_bytes"]


def test_a_session_frees_its_buffers():
    unet = fxcache.optimize(tiny.small_unet())
    with torch.no_grad(), fxcache.session(unet):
        unet(timestep=1, **tiny.inputs())
    gc.collect()
    assert fxcache.report(unet).cached_bytes == 0


class Work:
    """A stand-in for a CUDA event, which is done when the test says so."""

    def __init__(self) -> None:
        self.done, self.waited = False, False

    def query(self) -> bool:
        return self.done

    def wait(self) -> None:
        self.waited = True


def cached_call(
    unet: UNet2DConditionModel, work: Work, call: Callable[..., Any] | None = None
) -> weakref.ref[torch.Tensor]:
    """Return a cache whose only buffer is used by a call that the device has not finished."""
    with torch.no_grad():
        (unet if call is None else call)(timestep=1, **tiny.inputs())
    cache = store_of(unet).trajectories[-1].cache
    cache.set_last_use(work)  # type: ignore[arg-type]
    return weakref.ref(held(cache))


def store_of(unet: UNet2DConditionModel) -> TrajectoryStore:
    engine = optimized_engine(unet)
    return engine.store


@pytest.mark.parametrize("frees", ["session", "clear"])
def test_a_buffer_in_use_is_freed_after_its_work(frees):
    unet, work = fxcache.optimize(tiny.small_unet()), Work()
    if frees == "session":
        with fxcache.session(unet):
            buffer = cached_call(unet, work)
    else:
        buffer = cached_call(unet, work)
        fxcache.clear(unet)
    assert not store_of(unet).trajectories
    assert buffer() is not None
    assert fxcache.report(unet).cached_bytes > 0
    work.done = True
    fxcache.clear(unet)
    assert buffer() is None
    assert fxcache.report(unet).cached_bytes == 0


@pytest.mark.usefixtures("clean_dynamo")
def test_a_buffer_is_recycled_after_its_work():
    unet, work = fxcache.optimize(tiny.small_unet(), cache=ONE_TRAJECTORY), Work()
    compiled = torch.compile(unet, backend="eager")
    buffer = cached_call(unet, work, compiled)
    with torch.no_grad(), pytest.warns(fxcache.FxcacheWarning, match="cached values are dropped"):
        compiled(timestep=5, **tiny.inputs(seed=1))
    assert held(store_of(unet).trajectories[-1].cache) is buffer()
    assert work.waited


def test_channels_last_values_keep_their_layout():
    unet = tiny.small_unet().to(memory_format=torch.channels_last)
    expected = sample(unet, **tiny.inputs())
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=1))
    assert torch.equal(sample(unet, **tiny.inputs()), expected)


def results_of_refreshes(model: nn.Module) -> list[torch.Tensor]:
    """Receive the tensors that the steps of ``model`` compute for the cache."""
    found: list[torch.Tensor] = []

    def note(step: RecordedStep) -> None:
        found.extend(value for values in step.values.values() for value in values)

    optimized_engine(model).recorder = note
    return found


def test_an_eager_refresh_copies_nothing():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), cut=0)
    results = results_of_refreshes(unet)
    sample(unet, 6, **tiny.inputs())
    (entry,) = store_of(unet).trajectories[-1].cache.entries.values()
    assert len(results) == 2
    assert entry.buffers[0] is results[-1]


@pytest.mark.usefixtures("clean_dynamo")
def test_a_compiled_refresh_writes_to_the_buffers_itself():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), cut=0, hoist=None)
    sample(torch.compile(unet, backend="eager"), 6, **tiny.inputs())
    (trajectory,) = store_of(unet).trajectories
    plain = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), cut=0, hoist=None)
    sample(plain, 6, **tiny.inputs())
    assert torch.equal(held(trajectory.cache), held(store_of(plain).trajectories[-1].cache))
    refreshes = [key for key in variants_of(unet).made if key.in_place]
    assert refreshes == [VariantKey(NOTHING, in_place=True)]
    assert variants_of(unet).made[refreshes[0]].signature.writes == ()


@pytest.mark.usefixtures("clean_dynamo")
def test_values_that_a_recorder_needs_are_returned_and_copied():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), cut=0)
    results = results_of_refreshes(unet)
    sample(torch.compile(unet, backend="eager"), 6, **tiny.inputs())
    (entry,) = store_of(unet).trajectories[-1].cache.entries.values()
    assert entry.buffers[0].data_ptr() not in [value.data_ptr() for value in results]
    assert torch.equal(entry.buffers[0], results[-1])


@pytest.mark.usefixtures("clean_dynamo")
def test_no_value_of_a_failed_refresh_is_read():
    """The graph may have written some of its buffers."""
    failing = False

    def backend(graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            results = graph(*inputs)
            if failing:
                raise RuntimeError("out of memory")
            return results

        return run

    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(2), cut=0, hoist=None)
    compiled, inputs = torch.compile(unet, backend=backend), tiny.inputs()
    timesteps = torch.tensor([900, 800, 700])
    with torch.no_grad():
        compiled(timestep=timesteps[0], **inputs)
        compiled(timestep=timesteps[1], **inputs)
        failing = True
        with pytest.raises(RuntimeError, match="out of memory"):
            compiled(timestep=timesteps[2], **inputs)
        failing = False
        found = compiled(timestep=timesteps[2], **inputs)
        expected = tiny.small_unet()(timestep=timesteps[2], **inputs)
    assert torch.equal(found.sample, expected.sample)


def test_a_refresh_frees_old_values_before_it_runs():
    """The cache is in memory once, also while a refresh runs."""
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(1), cut=0, hoist=None)
    freed, held = [], []
    with torch.no_grad(), fxcache.session(unet):
        unet(timestep=900, **tiny.inputs())
        variants = variants_of(unet)
        held.append(weakref.ref(held_by(unet)))
        with interrupted(unet, variants.full, lambda: freed.append(held[0]() is None)):
            unet(timestep=800, **tiny.inputs())
    assert freed == [True]


def held_by(unet: UNet2DConditionModel) -> torch.Tensor:
    (trajectory,) = store_of(unet).trajectories
    return held(trajectory.cache)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(torch.ones(4, 3)[:2], id="part of other memory"),
        pytest.param(torch.ones(1, 3).expand(2, 3), id="one row in the place of two"),
    ],
)
def test_values_with_shared_memory_are_copied(value):
    cache = FeatureCache()
    cache.write({0: value}, 0, Identity(), "a capture", eager_inputs=())
    assert held(cache) is not value
    assert torch.equal(held(cache), value)


def test_a_part_of_an_input_is_copied():
    cache, latent = FeatureCache(), torch.ones(2, 3)
    cache.write({0: latent.view(3, 2)}, 0, Identity(), "a capture", eager_inputs=(latent,))
    latent.fill_(9)
    assert torch.equal(held(cache), torch.ones(3, 2))


def test_two_values_in_one_memory_are_copied():
    cache, value = FeatureCache(), torch.ones(2, 3)
    cache.write({0: value, 1: value.t()}, 0, Identity(), "a capture", eager_inputs=())
    assert held(cache).data_ptr() != cache.entries[1].buffers[0].data_ptr()


def test_a_copy_never_overwrites_a_kept_result():
    cache, value = FeatureCache(), torch.ones(2, 3)
    cache.write({0: value}, 0, Identity(), "a capture", eager_inputs=())
    assert held(cache) is value
    store(cache, torch.zeros(2, 3), 1, fresh=False)
    assert torch.equal(value, torch.ones(2, 3))
    assert torch.equal(held(cache), torch.zeros(2, 3))
