"""Tests hooks of accelerate and diffusers that move or cast weights between calls."""

from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

import fxcache
from tests.engines import optimized_engine
from tests.pipelines.build import (
    FLUX_PROMPT,
    SD_PROMPT,
    every_third,
    flux,
    follows,
    keeps,
    optimised,
    runs,
    stable_diffusion,
)

pytestmark = pytest.mark.usefixtures("shared_captures")

CPU = torch.device("cpu")
MODELS = pytest.mark.parametrize("made", [stable_diffusion, flux])
ORDER = pytest.mark.parametrize("hooked_first", [True, False], ids=["before", "after"])


def whole(model: nn.Module) -> None:
    """Hook the whole model as enable_model_cpu_offload does, which itself needs an accelerator."""
    accelerate.cpu_offload_with_hook(model, execution_device=CPU)


def sequential(model: nn.Module) -> None:
    """Hook submodules as enable_sequential_cpu_offload does."""
    accelerate.cpu_offload(model, execution_device=CPU)


def groups_of_leaves(model: nn.Module) -> None:
    apply_group_offloading(model, CPU, CPU, offload_type="leaf_level")


def groups_of_blocks(model: nn.Module) -> None:
    apply_group_offloading(model, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def layerwise(model: Any) -> None:
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


REFUSED = pytest.mark.parametrize("hook", [sequential, groups_of_leaves, layerwise])


@MODELS
@ORDER
def test_whole_model_offload(made, hooked_first):
    model, draw, _ = made()
    plain = draw()
    if hooked_first:
        whole(model)
        keeps(draw, model)
        return
    fxcache.optimize(model, policy=fxcache.Uniform(interval=1))
    whole(model)
    assert torch.equal(draw(), plain)
    fxcache.restore(model)
    assert torch.equal(draw(), plain)


def drawn_while_hooked(made: Any, hook: Any, hooked_first: bool) -> fxcache.CaptureError:
    model, draw, _ = made()
    if hooked_first:
        hook(model)
    fxcache.optimize(model)
    if not hooked_first:
        hook(model)
    with pytest.raises(fxcache.CaptureError) as caught:
        draw()
    assert not optimized_engine(model).captures
    fxcache.restore(model)
    hooked, expected, _ = made()
    hook(hooked)
    assert torch.equal(draw(), expected()), "the model must work as before"
    return caught.value


@MODELS
@ORDER
@REFUSED
def test_hooks_that_move_weights_inside_are_refused(made, hook, hooked_first):
    error = drawn_while_hooked(made, hook, hooked_first)
    assert any(place in error.where for place in ("accelerate", "diffusers/hooks"))
    assert "hook" in error.remedy or "offload" in error.remedy


@MODELS
def test_block_offload_before_is_refused(made):
    model, draw, _ = made()
    groups_of_blocks(model)
    plain = draw()
    with pytest.raises(fxcache.StateError) as caught:
        fxcache.optimize(model)
    assert "optimize the module before" in caught.value.remedy
    assert torch.equal(draw(), plain)


@MODELS
def test_block_offload_after_is_refused(made):
    model, draw, _ = made()
    fxcache.optimize(model)
    groups_of_blocks(model)
    with pytest.raises(fxcache.CaptureError):
        draw()


def test_restoring_under_block_offload_is_refused():
    model, _, _ = stable_diffusion()
    fxcache.optimize(model)
    groups_of_blocks(model)
    with pytest.raises(fxcache.StateError) as caught:
        fxcache.restore(model)
    assert caught.value.remedy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("made", "prompt"), [(stable_diffusion, SD_PROMPT), (flux, FLUX_PROMPT)])
def test_half_precision(made, prompt, dtype):
    model, draw, pipe = made(**cast(prompt, dtype))
    pipe.to(dtype)
    keeps(draw, model)


def test_flux_in_float16_with_a_cut():
    model, draw, pipe = flux(**cast(FLUX_PROMPT, torch.float16))
    pipe.to(torch.float16)
    plain = draw()
    cut = ("transformer_blocks.1", "single_transformer_blocks.1")
    with optimised(model, interval=1, cut=cut):
        assert torch.equal(draw(), plain)
    with optimised(model, cut=cut):
        first = draw()
        assert runs(model) == [every_third(model)]
        assert torch.equal(draw(), first)
        assert not torch.equal(first, plain)


def cast(prompt: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in prompt.items()}


def test_weights_cast_there_and_back_between_runs():
    follows(stable_diffusion, lambda pipe: pipe.unet.half().float())


def test_channels_last():
    model, draw, _ = stable_diffusion()
    model.to(memory_format=torch.channels_last)
    keeps(draw, model)


def test_channels_last_between_runs():
    follows(stable_diffusion, lambda pipe: pipe.unet.to(memory_format=torch.channels_last))
