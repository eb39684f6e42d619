"""Tests hooks of accelerate and diffusers that move or cast weights between calls."""

from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

import fxcache
from tests.engines import num_captures, variants_of
from tests.pipelines.build import (
    EVERY_THIRD,
    FLUX_PROMPT,
    SD_PROMPT,
    flux,
    follows,
    keeps,
    optimised,
    paced,
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


HOOKS = [sequential, groups_of_leaves, groups_of_blocks, layerwise]
# Each hook on one model, in one order; the others with "make test-slow".
LOADING = pytest.mark.parametrize(
    ("hook", "made", "hooked_first"),
    [
        pytest.param(
            hook,
            made,
            first,
            id=f"{hook.__name__}-{made.__name__}-{'before' if first else 'after'}",
            marks=[] if (made is flux) == first == (number % 2 == 0) else pytest.mark.slow,
        )
        for number, hook in enumerate(HOOKS)
        for made in (stable_diffusion, flux)
        for first in (True, False)
    ],
)


@pytest.mark.sweep(2)
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


@LOADING
def test_hooks_that_load_weights_inside(hook, made, hooked_first):
    hooked, expected, _ = made()
    hook(hooked)
    plain = expected()
    model, draw, _ = made()
    if hooked_first:
        hook(model)
    with optimised(model, interval=1):
        if not hooked_first:
            hook(model)
        assert torch.equal(draw(), plain)
        runs(model)
        paced(3, model)
        first = draw()
        assert runs(model) == [EVERY_THIRD]
        assert torch.equal(draw(), first)
        assert num_captures(model) == 1
    assert not torch.equal(first, plain), "nothing was reused"
    assert torch.equal(draw(), plain), "the model must work as before"


def test_a_reuse_step_casts_only_the_weights_that_it_reads():
    model, draw, _ = stable_diffusion()
    layerwise(model)
    with optimised(model, hoist=None):
        draw()
        graphs = [v.module for v in variants_of(model).made.values()]
        full, reuse = sorted(map(casts, graphs), reverse=True)
    assert 0 < reuse < full / 2


def casts(module: torch.fx.GraphModule) -> int:
    """Return the number of weights that the graph of ``module`` casts."""
    found = module.graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype)
    return sum(node.all_input_nodes[0].op == "get_attr" for node in found)


def test_weights_changed_while_they_are_not_offloaded():
    def made() -> Any:
        model, draw, pipe = stable_diffusion()
        sequential(model)
        return model, draw, pipe

    def change(pipe: Any) -> None:
        accelerate.hooks.remove_hook_from_module(pipe.unet, recurse=True)
        with torch.no_grad():
            pipe.unet.conv_in.weight.mul_(1.5)
        sequential(pipe.unet)

    follows(made, change)


def test_weights_in_files_are_refused(tmp_path):
    model, draw, _ = stable_diffusion()
    plain = draw()
    apply_group_offloading(
        model, CPU, CPU, offload_type="leaf_level", offload_to_disk_path=str(tmp_path)
    )
    fxcache.optimize(model)
    with pytest.raises(fxcache.CaptureError, match="from a file") as caught:
        draw()
    assert caught.value.remedy
    fxcache.restore(model)
    assert torch.equal(draw(), plain)


@pytest.mark.sweep(1)
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
        assert runs(model) == [EVERY_THIRD]
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
