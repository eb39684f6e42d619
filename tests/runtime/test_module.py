"""Tests the class swap: the module stays what it is, and ``restore`` undoes all changes."""

import gc
import weakref

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers import UNet2DConditionModel

import fxcache
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import refreshes, sample

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture
def unet() -> UNet2DConditionModel:
    return tiny.small_unet()


def test_the_optimised_module_keeps_its_interface(unet, tmp_path):
    keys, config, name = unet.state_dict().keys(), unet.config, repr(unet)
    assert fxcache.optimize(unet) is unet
    assert isinstance(unet, UNet2DConditionModel)
    assert (unet.state_dict().keys(), unet.config, repr(unet)) == (keys, config, name)
    assert unet.dtype == torch.float32
    unet.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path)
    assert type(loaded) is UNet2DConditionModel
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), unet.parameters(), strict=True)
    )


def test_restore_leaves_nothing_behind(unet):
    before, expected = dict(vars(unet)), sample(unet, **tiny.inputs())
    sample(fxcache.optimize(unet), **tiny.inputs())
    assert fxcache.restore(unet) is unet
    assert type(unet) is UNet2DConditionModel
    assert vars(unet).keys() == before.keys()
    assert all(vars(unet)[k] is v for k, v in before.items())
    assert torch.equal(sample(unet, **tiny.inputs()), expected)
    unet.train()(timestep=1, **tiny.inputs()).sample.sum().backward()
    assert unet.conv_in.weight.grad is not None


def test_an_optimised_module_is_freed_with_its_last_reference():
    unet = fxcache.optimize(tiny.small_unet())
    unet.mid_block.register_forward_hook(lambda *_: None)
    unet.act = lambda value: value
    with torch.no_grad():
        unet(timestep=3, **tiny.inputs())
    with fxcache.session(unet):
        sample(unet, **tiny.inputs())
    sample(
        fxcache.optimize(unet, fxcache.TeaCache(0.2, coefficients=(1.0, 0.0)), hoist="table"),
        **tiny.inputs(),
    )
    reference = weakref.ref(unet)
    gc.collect()
    gc.disable()
    try:
        del unet
        assert reference() is None
    finally:
        gc.enable()


def test_weights_are_shared_not_copied(unet):
    fxcache.optimize(
        unet, capture=fxcache.CaptureConfig(example_inputs={**tiny.inputs(), "timestep": 1})
    )
    (variants,) = optimized_engine(unet).captures.values()
    ours = {p.data_ptr() for v in (variants.full, variants.cached_skip) for p in v.parameters()}
    assert ours <= {p.data_ptr() for p in unet.parameters()}
    assert sum(1 for _ in variants.cached_skip.parameters()) < sum(1 for _ in unet.parameters())


def test_moved_to_another_dtype_after_optimize(unet):
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=1))
    sample(unet, **tiny.inputs())
    inputs = {k: v.bfloat16() for k, v in tiny.inputs().items()}
    expected = sample(tiny.small_unet().bfloat16(), **inputs)
    assert torch.equal(sample(unet.bfloat16(), **inputs), expected)


def test_inside_an_accelerate_hook_set_before(unet):
    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module, *args, **kwargs):
            self.calls += 1
            return args, kwargs

    hook = Counting()
    add_hook_to_module(unet, hook)
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=5))
    expected = sample(unet, **tiny.inputs())
    assert refreshes(unet) == [[0, 5]]
    assert hook.calls == 10
    fxcache.restore(unet)
    uncached = sample(unet, **tiny.inputs())
    assert not torch.equal(uncached, expected)
    assert torch.equal(uncached, sample(tiny.small_unet(), **tiny.inputs()))
    assert hook.calls == 20


def test_a_hook_set_after_and_removed(unet):
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=5))
    expected = sample(unet, **tiny.inputs())
    add_hook_to_module(unet, ModelHook())
    assert torch.equal(sample(unet, **tiny.inputs()), expected)
    remove_hook_from_module(unet)
    assert torch.equal(sample(unet, **tiny.inputs()), expected)
    assert refreshes(unet) == [[0, 5]] * 3
    fxcache.restore(unet)
    assert "forward" not in vars(unet)


def test_pipelines_see_the_original_signature(unet):
    import inspect

    before = inspect.signature(unet.forward)
    assert inspect.signature(fxcache.optimize(unet).forward) == before


def test_a_model_wrapped_by_torch_compile_is_unwrapped(unet):
    wrapped = torch.compile(unet, backend="eager")
    assert fxcache.optimize(wrapped) is wrapped
    assert fxcache.report(unet).model == "UNet2DConditionModel"
    fxcache.restore(wrapped)
    assert type(unet) is UNet2DConditionModel
