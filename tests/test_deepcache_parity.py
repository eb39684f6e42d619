"""Compares bit for bit with the PyPI package DeepCache, on solvers that it handles correctly."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import EulerDiscreteScheduler
from torch import Tensor

import fxcache
from tests import tiny
from tests.engines import optimized_engine

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 20
SCHEDULERS = {"ddim": tiny.ddim, "euler": EulerDiscreteScheduler}


def latents(pipe: Any, scheduler: str) -> Tensor:
    pipe.scheduler = SCHEDULERS[scheduler]()
    found: Tensor = pipe(
        tiny.PROMPT,
        num_inference_steps=STEPS,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    return found


def built() -> Any:
    return tiny.pipeline(unet=tiny.unet())


@pytest.fixture(scope="module")
def deepcache_pipe() -> Any:
    return built()


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return {scheduler: latents(built(), scheduler) for scheduler in SCHEDULERS}


@pytest.fixture(scope="module", params=[0, 1, 2, 4])
def at(request: pytest.FixtureRequest) -> tuple[int, Any]:
    """Return the index of a skip connection, and a pipeline that is cut there."""
    pipe = built()
    fxcache.optimize(pipe.unet, cut=request.param)
    return request.param, pipe


@pytest.mark.sweep(3)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_latents_equal_deepcaches(deepcache_pipe, plain, at, interval, scheduler):
    index, pipe = at
    helper = DeepCacheSDHelper(pipe=deepcache_pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=index)
    helper.enable()
    try:
        expected = latents(deepcache_pipe, scheduler)
    finally:
        helper.disable()

    engine = optimized_engine(pipe.unet)
    engine.settings = replace(engine.settings, policy=fxcache.Uniform(interval))
    found = latents(pipe, scheduler)
    assert torch.equal(found, expected)
    assert not torch.equal(found, plain[scheduler]), "the cache changed nothing: nothing was tested"
