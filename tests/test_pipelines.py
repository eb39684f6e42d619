"""Tests diffusers' own pipelines with every solver: counts and results are exact."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

import fxcache
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import refreshes, steps
from tests.pipelines.build import PICTURE

pytestmark = pytest.mark.usefixtures("shared_captures")

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {
    "ddim": tiny.ddim,
    "dpm-solver++": lambda: DPMSolverMultistepScheduler(**SD),
    "euler": lambda: EulerDiscreteScheduler(**SD),
    "euler-ancestral": lambda: EulerAncestralDiscreteScheduler(**SD),
    "unipc": lambda: UniPCMultistepScheduler(**SD),
    "lcm": lambda: LCMScheduler(**SD),
    "heun": lambda: HeunDiscreteScheduler(**SD),
    "pndm": lambda: PNDMScheduler(**SD, steps_offset=1, skip_prk_steps=True),
    "pndm-prk": lambda: PNDMScheduler(**SD, steps_offset=1),
}
SIZE = {"height": 32, "width": 32}
MASK = Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((16, 16))).astype(np.uint8))


def draw(pipe: Any, seed: int = 0, **options: Any) -> torch.Tensor:
    """Return latents, because the VAE would round differences."""
    generator = torch.Generator().manual_seed(seed)
    options = {"prompt": tiny.PROMPT, "num_inference_steps": 20} | options
    return pipe(generator=generator, output_type="latent", **options).images


@pytest.fixture(scope="module")
def plain() -> Any:
    return tiny.pipeline()


@pytest.fixture(scope="module")
def fresh_cached() -> Any:
    pipe = tiny.pipeline()
    fxcache.optimize(pipe.unet, policy=fxcache.Uniform(interval=5))
    return pipe


@pytest.fixture
def cached(fresh_cached: Any) -> Any:
    optimized_engine(fresh_cached.unet).runs.clear()
    fresh_cached.scheduler = tiny.ddim()
    return fresh_cached


@pytest.mark.sweep(2)
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_every_solver_refreshes_one_call_in_five(cached, solver):
    cached.scheduler = SCHEDULERS[solver]()
    first = draw(cached, **SIZE)
    again = draw(cached, **SIZE)
    for run, calls in zip(refreshes(cached.unet), steps(cached.unet), strict=True):
        assert run == list(range(0, calls, 5))
        assert len(run) == math.ceil(calls / 5)
    assert len(steps(cached.unet)) == 2
    assert steps(cached.unet)[0] == len(cached.scheduler.timesteps)
    assert torch.equal(first, again), "the second run saw something of the first"


@pytest.mark.parametrize("solver", ["heun", "pndm"])
def test_second_order_solvers_at_20_steps_count_calls_not_timesteps(cached, solver):
    cached.scheduler = SCHEDULERS[solver]()
    draw(cached, **SIZE)
    calls = {"heun": 39, "pndm": 21}[solver]
    assert steps(cached.unet) == [calls]
    assert refreshes(cached.unet) == [list(range(0, calls, 5))]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_refreshing_every_step_equals_the_plain_pipeline(plain, solver):
    plain.scheduler = SCHEDULERS[solver]()
    expected = draw(plain, num_inference_steps=5, **SIZE)
    with caching(plain.unet, fxcache.Uniform(interval=1)):
        assert torch.equal(draw(plain, num_inference_steps=5, **SIZE), expected)


class caching:  # noqa: N801 - reads as a statement
    """Optimise the model inside the block."""

    def __init__(self, unet: torch.nn.Module, policy: fxcache.Policy):
        self.unet, self.policy = unet, policy

    def __enter__(self) -> torch.nn.Module:
        return fxcache.optimize(self.unet, policy=self.policy)

    def __exit__(self, *_: object) -> None:
        fxcache.restore(self.unet)


@pytest.mark.parametrize("count", [1, 2, 7, 13])
def test_odd_step_counts(cached, count):
    cached.scheduler = tiny.ddim()
    draw(cached, num_inference_steps=count, **SIZE)
    assert refreshes(cached.unet) == [list(range(0, count, 5))]


def test_two_runs_of_one_lcm_step_never_reuse(cached):
    cached.scheduler = SCHEDULERS["lcm"]()
    text = torch.randn(1, 16, tiny.TEXT_WIDTH)
    options = {"prompt": None, "prompt_embeds": text, "guidance_scale": 1.0}
    first = draw(cached, seed=1, num_inference_steps=1, **options, **SIZE)
    second = draw(cached, seed=2, num_inference_steps=1, **options, **SIZE)
    assert all(
        run == list(range(n))
        for run, n in zip(refreshes(cached.unet), steps(cached.unet), strict=True)
    )
    assert not torch.equal(first, second)


def test_batch_and_size_change_between_runs(cached):
    cached.scheduler = tiny.ddim()
    small = draw(cached, **SIZE)
    draw(cached, prompt=[tiny.PROMPT] * 2, **SIZE)
    draw(cached, height=64, width=32)
    assert torch.equal(draw(cached, **SIZE), small)
    assert refreshes(cached.unet) == [[0, 5, 10, 15]] * 4


@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_run_after_an_interrupted_run_is_exact(cached, at):
    cached.scheduler = tiny.ddim()
    expected = draw(cached, **SIZE)

    def interrupt(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == at:
            raise KeyboardInterrupt
        return values

    with pytest.raises(KeyboardInterrupt):
        draw(cached, seed=5, callback_on_step_end=interrupt, **SIZE)
    assert torch.equal(draw(cached, **SIZE), expected)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_guidance_on_and_off(cached, guidance):
    cached.scheduler = tiny.ddim()
    draw(cached, guidance_scale=guidance, **SIZE)
    assert refreshes(cached.unet) == [[0, 5, 10, 15]]


def test_img2img_at_changing_strength(cached):
    pipe = StableDiffusionImg2ImgPipeline.from_pipe(cached)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = tiny.ddim()
    drawn = {s: draw(pipe, image=PICTURE, strength=s) for s in (1.0, 0.5, 0.75, 0.2)}
    assert steps(cached.unet) == [20, 10, 15, 4]
    assert refreshes(cached.unet) == [[0, 5, 10, 15], [0, 5], [0, 5, 10], [0]]
    assert all(torch.equal(draw(pipe, image=PICTURE, strength=s), x) for s, x in drawn.items())


def test_img2img_after_text2img_starts_from_its_image(cached):
    pipe = StableDiffusionImg2ImgPipeline.from_pipe(cached)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = cached.scheduler = tiny.ddim()
    alone = draw(pipe, image=PICTURE, strength=0.5)
    draw(cached, seed=9, **SIZE)
    assert torch.equal(draw(pipe, image=PICTURE, strength=0.5), alone)


def test_inpaint(cached):
    pipe = StableDiffusionInpaintPipeline.from_pipe(cached)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = tiny.ddim()
    draw(pipe, image=PICTURE, mask_image=MASK, strength=0.9, **SIZE)
    assert refreshes(cached.unet) == [[0, 5, 10, 15]]


def test_controlnet_residuals_are_fresh_on_every_step(plain):
    pipe = StableDiffusionControlNetPipeline.from_pipe(
        plain, controlnet=tiny.controlnet(plain.unet)
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = tiny.ddim()
    expected = draw(pipe, image=PICTURE, num_inference_steps=6)
    with caching(pipe.unet, fxcache.Uniform(interval=1)):
        assert torch.equal(draw(pipe, image=PICTURE, num_inference_steps=6), expected)
    with caching(pipe.unet, fxcache.Uniform(interval=3)):
        first = draw(pipe, image=PICTURE)
        assert torch.equal(draw(pipe, image=PICTURE), first)
        assert refreshes(pipe.unet) == [list(range(0, 20, 3))] * 2


def test_sdxl():
    pipe = tiny.xl_pipeline()
    expected = draw(pipe, num_inference_steps=6, **SIZE)
    with caching(pipe.unet, fxcache.Uniform(interval=1)):
        assert torch.equal(draw(pipe, num_inference_steps=6, **SIZE), expected)
    with caching(pipe.unet, fxcache.Uniform(interval=3)):
        draw(pipe, **SIZE)
        image = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
        image.set_progress_bar_config(disable=True)
        draw(image, image=PICTURE, strength=0.5)
        assert refreshes(pipe.unet) == [list(range(0, 20, 3)), [0, 3, 6, 9]]


def test_timesteps_separate_runs_of_an_unconditional_pipeline():
    pipe = DDPMPipeline(tiny.unconditional_unet(), DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    fxcache.optimize(pipe.unet, policy=fxcache.Uniform(interval=5))

    def picture() -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(generator=generator, num_inference_steps=12, output_type="np").images

    first = picture()
    assert np.array_equal(picture(), first)
    assert refreshes(pipe.unet) == [[0, 5, 10]] * 2


def test_inference_mode_around_a_pipeline(cached):
    cached.scheduler = tiny.ddim()
    expected = draw(cached, **SIZE)
    with torch.inference_mode():
        inside = draw(cached, **SIZE)
    assert torch.equal(inside, expected)
    assert torch.equal(draw(cached, **SIZE), expected)
    assert refreshes(cached.unet) == [[0, 5, 10, 15]] * 3


@pytest.mark.sweep(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    pipe = tiny.pipeline().to(dtype)
    expected = draw(pipe, num_inference_steps=4, **SIZE)
    with caching(pipe.unet, fxcache.Uniform(interval=1)):
        assert torch.equal(draw(pipe, num_inference_steps=4, **SIZE), expected)
    with caching(pipe.unet, fxcache.Uniform(interval=2)):
        draw(pipe, num_inference_steps=4, **SIZE)
        assert refreshes(pipe.unet) == [[0, 2]]
