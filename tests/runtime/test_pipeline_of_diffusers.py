"""Tests optimised pipelines of diffusers: made from each other, saved and copied."""

import copy
from typing import Any

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForText2Image,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from torch import nn

import fxcache
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.loops import refreshes
from tests.runtime.pipeline import (
    SIZE,
    draw,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture(scope="module")
def diffusers_pipe() -> Any:
    return tiny.pipeline()


@pytest.fixture
def pipe(diffusers_pipe) -> Any:
    """Return an optimised pipeline of diffusers, and restore it afterwards."""
    yield fxcache.optimize(diffusers_pipe, fxcache.Uniform(3))
    fxcache.restore(diffusers_pipe)


def test_diffusers_pipelines(pipe):
    assert isinstance(pipe, StableDiffusionPipeline)
    first = draw(pipe, **SIZE)
    assert torch.equal(draw(pipe, **SIZE), first)
    assert refreshes(pipe.unet) == [[0, 3], [0, 3]]
    assert list(fxcache.report(pipe).components) == ["unet"]
    assert pipe.to(torch.float32) is pipe
    assert [n for n, m in pipe.components.items() if isinstance(m, nn.Module) and engine_of(m)] == [
        "unet"
    ]


def test_pipelines_made_from_each_other_share_the_optimised_denoiser(pipe):
    image = torch.zeros(1, 3, 32, 32)
    made = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert made.unet is pipe.unet
    assert type(made) is StableDiffusionImg2ImgPipeline
    made.set_progress_bar_config(disable=True)
    draw(made, image=image, strength=1.0)
    assert refreshes(pipe.unet) == [[0, 3]]
    fxcache.optimize(made, fxcache.Uniform(2))
    for back in (StableDiffusionPipeline, AutoPipelineForText2Image):
        assert back.from_pipe(made).unet is pipe.unet
    assert AutoPipelineForImage2Image.from_pipe(pipe).unet is pipe.unet
    assert type(pipe).from_pipe(made).unet is pipe.unet
    fxcache.restore(made)
    assert type(made) is StableDiffusionImg2ImgPipeline


def test_made_from_a_pipeline_whose_module_alone_is_optimised(diffusers_pipe):
    fxcache.optimize(diffusers_pipe.unet)
    made = StableDiffusionImg2ImgPipeline.from_pipe(diffusers_pipe)
    assert made.unet is diffusers_pipe.unet
    fxcache.restore(diffusers_pipe.unet)


def test_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is StableDiffusionPipeline
    assert engine_of(loaded.unet) is None
    fxcache.optimize(loaded, fxcache.Uniform(3))
    assert torch.equal(draw(loaded, **SIZE), draw(pipe, **SIZE))


def test_copied(pipe):
    twin = copy.deepcopy(pipe)
    assert torch.equal(draw(twin, **SIZE), draw(pipe, **SIZE))
    assert refreshes(twin.unet) == [[0, 3]]


def test_another_unet_of_diffusers(pipe):
    own = pipe.unet
    pipe.unet = tiny.small_unet()
    with pytest.warns(fxcache.FxcacheWarning, match="unet of StableDiffusionPipeline"):
        draw(pipe, **SIZE)
    pipe.unet = own
    draw(pipe, **SIZE)
    assert refreshes(own)[-1] == [0, 3]
