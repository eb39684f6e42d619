"""Tests that many threads can call one pipeline at once, and each gets what it gets alone."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import fxcache
from fxcache.serving import BatchedPipeline, rows_of
from tests import tiny
from tests.pipelines.build import (
    FLUX_PROMPT,
    SD_PROMPT,
    WAN_PROMPT,
    assembled,
    denoiser,
    flow_unipc,
    noise,
)

COUNTS = (4, 7, 5)  # steps of the pictures that are drawn at once


def stable_diffusion() -> Any:
    return tiny.pipeline()


def second_order() -> Any:
    return tiny.pipeline(scheduler=diffusers.HeunDiscreteScheduler(steps_offset=1))


def flux() -> Any:
    model = denoiser("FluxTransformer2DModel", guidance_embeds=True)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(diffusers.FluxPipeline, transformer=model, scheduler=scheduler)


def wan() -> Any:
    model = denoiser("WanTransformer3DModel")
    return assembled(diffusers.WanPipeline, transformer=model, scheduler=flow_unipc())


# Wan calls its transformer twice a step, here with equal prompts.
PIPELINES: Mapping[str, tuple[Callable[[], Any], Mapping[str, Any]]] = {
    "Stable Diffusion": (stable_diffusion, SD_PROMPT),
    "a solver of second order": (second_order, SD_PROMPT),
    "FLUX": (flux, FLUX_PROMPT),
    "Wan": (wan, WAN_PROMPT),
}


def options_of(prompt: Mapping[str, Any], picture: int, rows: int = 1) -> dict[str, Any]:
    """Return the options of one picture, with a prompt of its own."""
    return {
        name: noise(rows, *value.shape[1:], seed=picture) if isinstance(value, Tensor) else value
        for name, value in prompt.items()
    }


def latents(call: Any, prompt: Mapping[str, Any], picture: int, **options: Any) -> Tensor:
    """Return the latents of a picture."""
    found: Tensor = call(
        **options_of(prompt, picture),
        num_inference_steps=COUNTS[picture],
        generator=torch.Generator().manual_seed(picture),
        output_type="latent",
        return_dict=False,
        **options,
    )[0]
    return found


def made(name: str, **options: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return a pipeline that is optimised for any number of rows, and its prompt."""
    make, prompt = PIPELINES[name]
    pipe = make()
    rows = rows_of(pipe, **options_of(prompt, 0, rows=3), num_inference_steps=2)
    capture = fxcache.CaptureConfig(dynamic=rows)
    fxcache.optimize(pipe, fxcache.Uniform(3), hoist=None, capture=capture, **options)
    return pipe, prompt


def together(batched: BatchedPipeline, prompt: Mapping[str, Any]) -> list[Tensor]:
    with ThreadPoolExecutor(len(COUNTS)) as pool:
        return list(pool.map(lambda n: latents(batched, prompt, n), range(len(COUNTS))))


@pytest.mark.parametrize("name", PIPELINES)
def test_pictures_drawn_at_once_equal_those_drawn_alone(name):
    pipe, prompt = made(name)
    with BatchedPipeline(pipe, linger=0.2) as batched:
        found = together(batched, prompt)
        statistics = batched.batcher.statistics
    assert statistics.calls < statistics.steps
    assert statistics.open_requests == 0
    alone, _ = PIPELINES[name][0](), None
    fxcache.optimize(alone, fxcache.Uniform(3), hoist=None)
    for picture, latent in enumerate(found):
        expected = latents(alone, prompt, picture)
        torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], latents(PIPELINES[name][0](), prompt, 0), rtol=1e-4)


def test_inputs_with_rows_are_found():
    pipe = flux()
    found = rows_of(pipe, **options_of(FLUX_PROMPT, 0, rows=3), num_inference_steps=2)
    named = {"hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance"}
    assert set(found) == named


def test_an_error_in_one_picture_touches_no_other():
    pipe, prompt = made("Stable Diffusion")
    calls: list[int] = []

    def third_step_fails() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise ConnectionError("the client left")

    with BatchedPipeline(pipe, linger=0.2) as batched, ThreadPoolExecutor(3) as pool:
        failing = pool.submit(latents, batched, prompt, 1, before_step=third_step_fails)
        others = [pool.submit(latents, batched, prompt, n) for n in (0, 2)]
        with pytest.raises(ConnectionError):
            failing.result()
        found = [other.result() for other in others]
        assert batched.batcher.statistics.open_requests == 0
        expected = [latents(batched, prompt, n) for n in (0, 2)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_pipeline_stays_as_it_is():
    pipe, prompt = made("Stable Diffusion")
    unet, scheduler, kind = pipe.unet, pipe.scheduler, type(pipe)
    before = dict(vars(scheduler))
    with BatchedPipeline(pipe) as batched:
        latents(batched, prompt, 0)
    assert (pipe.unet, pipe.scheduler, type(pipe)) == (unet, scheduler, kind)
    assert vars(scheduler).keys() == before.keys()
    assert scheduler.num_inference_steps is before["num_inference_steps"]


def test_a_loaded_artifact_takes_the_place_of_the_denoiser(tmp_path):
    pipe, prompt = made("Stable Diffusion")
    with BatchedPipeline(pipe) as batched:
        expected = latents(batched, prompt, 0)
    loaded = fxcache.load(fxcache.export(pipe.unet, tmp_path / "artifact"))
    fxcache.restore(pipe)
    with BatchedPipeline(pipe, loaded) as batched:
        assert torch.equal(latents(batched, prompt, 0), expected)


def test_a_pipeline_with_two_denoisers_is_refused():
    pipe = wan()
    pipe.register_modules(transformer_2=denoiser("WanTransformer3DModel"))
    with pytest.raises(fxcache.ConfigError, match="has several denoisers"):
        BatchedPipeline(pipe)


def test_a_pipeline_that_is_not_optimised_is_refused():
    with pytest.raises(fxcache.errors.StateError, match="not optimised"):
        BatchedPipeline(stable_diffusion())
