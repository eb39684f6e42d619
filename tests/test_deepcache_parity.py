"""Bit for bit what the PyPI package DeepCache computes, on solvers that it handles correctly."""

import pytest
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import EulerDiscreteScheduler

import fxcache
from tests import tiny

STEPS = 20


def latents(pipe: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(  # type: ignore[operator, no-any-return]
        tiny.PROMPT,
        num_inference_steps=STEPS,
        height=32,
        width=32,
        generator=generator,
        output_type="latent",
    ).images


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny.pipeline(unet=tiny.unet())


@pytest.mark.parametrize("index", [0, 1, 2, 4])
@pytest.mark.parametrize("scheduler", [tiny.ddim, EulerDiscreteScheduler])
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_latents_are_those_of_deepcache(pipe, interval, scheduler, index):
    pipe.scheduler = scheduler()
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=index)
    helper.enable()
    theirs = latents(pipe)
    helper.disable()

    fxcache.optimize(pipe.unet, cut=index, policy=fxcache.Uniform(interval=interval))
    try:
        ours = latents(pipe)
    finally:
        fxcache.restore(pipe.unet)

    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, latents(pipe)), "the cache changed nothing: nothing was tested"
