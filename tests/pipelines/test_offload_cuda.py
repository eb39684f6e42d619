"""Tests hooks that move weights to a GPU for each call. They need CUDA."""

from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

import fxcache
from tests import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

CPU, GPU = "cpu", "cuda"
STEPS = 7


def sequential(model: nn.Module) -> None:
    accelerate.cpu_offload(model, execution_device=torch.device(GPU, 0))


def in_groups(kind: str, stream: bool) -> Any:
    def hook(model: nn.Module) -> None:
        options: dict[str, Any] = {"offload_type": kind, "use_stream": stream}
        apply_group_offloading(
            model, torch.device(GPU), torch.device(CPU), num_blocks_per_group=1, **options
        )

    return hook


HOOKS = {
    "sequential": sequential,
    "blocks": in_groups("block_level", stream=False),
    "blocks with a stream": in_groups("block_level", stream=True),
    "leaves": in_groups("leaf_level", stream=False),
    "leaves with a stream": in_groups("leaf_level", stream=True),
}


@torch.no_grad()
def sampled(model: nn.Module) -> Tensor:
    scheduler = tiny.ddim()
    scheduler.set_timesteps(STEPS, device=GPU)
    inputs = {name: tensor.to(GPU) for name, tensor in tiny.inputs().items()}
    for t in scheduler.timesteps:
        predicted = model(timestep=t, **inputs).sample
        inputs["sample"] = scheduler.step(predicted, t, inputs["sample"]).prev_sample
    return inputs["sample"]


@pytest.mark.parametrize("name", list(HOOKS))
@pytest.mark.parametrize("hooked_first", [True, False], ids=["before", "after"])
def test_weights_are_moved_to_the_gpu(name: str, hooked_first: bool) -> None:
    hooked = tiny.small_unet()
    HOOKS[name](hooked)
    plain = [sampled(hooked) for _ in range(2)][1]  # the second run prefetches
    model = tiny.small_unet()
    if hooked_first:
        HOOKS[name](model)
    fxcache.optimize(model, fxcache.Uniform(1))
    if not hooked_first:
        HOOKS[name](model)
    assert torch.equal(sampled(model), plain)
    fxcache.optimize(model, fxcache.Uniform(3))
    first = sampled(model)
    assert fxcache.report(model).runs[-1].refreshes == [0, 3, 6]
    assert torch.equal(sampled(model), first)
    fxcache.restore(model)
    assert torch.equal(sampled(model), plain)
