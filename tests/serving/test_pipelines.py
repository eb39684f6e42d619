"""Tests that many threads can call one pipeline at once, and each gets what it gets alone."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import fxcache
from fxcache.serving import BatchedPipeline, Request, rows_of
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

MOST = 2e-4  # guidance multiplies what rounding changes
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


# Wan calls its transformer twice a step, with and without the prompt.
PIPELINES: Mapping[str, tuple[Callable[[], Any], Mapping[str, Any]]] = {
    "Stable Diffusion": (stable_diffusion, SD_PROMPT),
    "a solver of second order": (second_order, SD_PROMPT),
    "FLUX": (flux, FLUX_PROMPT),
    "Wan": (wan, WAN_PROMPT),
}


def options_of(prompt: Mapping[str, Any], picture: int, rows: int = 1) -> dict[str, Any]:
    """Return the options of one picture, with a prompt of its own."""
    return {
        name: noise(rows, *value.shape[1:], seed=10 * picture + number)
        if isinstance(value, Tensor)
        else value
        for number, (name, value) in enumerate(prompt.items())
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


def adapted() -> tuple[Any, Mapping[str, Any]]:
    """Return a pipeline with a ControlNet, whose residuals are new at each step."""
    pipe = tiny.pipeline()
    extended = diffusers.StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=tiny.controlnet(pipe.unet), requires_safety_checker=False
    )
    extended.set_progress_bar_config(disable=True)
    return extended, dict(SD_PROMPT) | {"image": torch.rand(1, 3, 32, 32)}


def refreshes(batched: BatchedPipeline, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list that will hold the refreshes of each request that ends."""
    found: list[list[int]] = []
    close = Request.close

    def noting(self: Request) -> None:
        found.append(self.refreshes)
        close(self)

    monkeypatch.setattr(Request, "close", noting)
    return found


def error(found: Tensor, expected: Tensor) -> float:
    """Return the greatest error as a share of the greatest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


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
        assert error(latent, expected) < MOST
    assert error(found[0], latents(PIPELINES[name][0](), prompt, 0)) > 10 * MOST


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
    assert all(error(x, y) < MOST for x, y in zip(found, expected, strict=True))


def test_a_step_that_fails_ends_its_picture_only():
    pipe, prompt = made("Stable Diffusion")
    with BatchedPipeline(pipe, linger=0.2) as batched:
        expected = latents(batched, prompt, 0)
        wrong = dict(prompt) | {
            "prompt_embeds": noise(1, 7, 5),
            "negative_prompt_embeds": noise(1, 7, 5),
        }
        with pytest.raises(RuntimeError):
            latents(batched, wrong, 1)
        assert batched.batcher.statistics.open_requests == 0
        torch.testing.assert_close(latents(batched, prompt, 0), expected)


@pytest.mark.parametrize("equal", [False, True])
def test_calls_with_two_prompts_a_step_are_two_requests(equal, monkeypatch):
    pipe, prompt = made("Wan")
    if equal:
        prompt = dict(prompt) | {"negative_prompt_embeds": prompt["prompt_embeds"]}
    with BatchedPipeline(pipe) as batched:
        ended = refreshes(batched, monkeypatch)
        latents(batched, prompt, 1)
    assert ended == [[0, 3, 6]] * 2


def test_residuals_of_a_controlnet_are_no_prompt(monkeypatch):
    pipe, prompt = adapted()
    rows = rows_of(pipe, **options_of(prompt, 0, rows=3), num_inference_steps=2)
    capture = fxcache.CaptureConfig(dynamic=rows)
    fxcache.optimize(pipe.unet, fxcache.Uniform(3), hoist=None, capture=capture)
    with BatchedPipeline(pipe) as batched:
        ended = refreshes(batched, monkeypatch)
        latents(batched, prompt, 1)
    assert ended == [[0, 3, 6]]


def test_a_changed_prompt_is_another_request(monkeypatch):
    def rewritten(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            values["prompt_embeds"].mul_(2)
        return values

    pipe, prompt = made("Stable Diffusion")
    with BatchedPipeline(pipe) as batched:
        ended = refreshes(batched, monkeypatch)
        inputs = ["latents", "prompt_embeds"]
        latents(
            batched,
            prompt,
            1,
            callback_on_step_end=rewritten,
            callback_on_step_end_tensor_inputs=inputs,
        )
    assert ended == [[0], [0, 3]]


def test_a_schedule_that_starts_over_is_another_request(monkeypatch):
    class Twice(diffusers.StableDiffusionPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            super().__call__(*args, **kwargs)
            return super().__call__(*args, **kwargs)

    pipe, prompt = made("Stable Diffusion")
    fxcache.restore(pipe)
    twice = Twice(**pipe.components, requires_safety_checker=False)
    twice.set_progress_bar_config(disable=True)
    rows = rows_of(pipe, **options_of(prompt, 0, rows=3), num_inference_steps=2)
    fxcache.optimize(
        twice.unet, fxcache.Uniform(3), hoist=None, capture=fxcache.CaptureConfig(dynamic=rows)
    )
    with BatchedPipeline(twice) as batched:
        ended = refreshes(batched, monkeypatch)
        latents(batched, prompt, 0)
    assert ended == [[0, 3], [0, 3]]


def test_a_run_that_begins_late_knows_its_length(monkeypatch):
    pipe, prompt = made("Stable Diffusion")
    later = diffusers.StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )
    later.set_progress_bar_config(disable=True)
    lengths: list[int] = []
    with BatchedPipeline(later) as batched:
        start = batched.batcher.start

        def noting(num_steps: int) -> Request:
            lengths.append(num_steps)
            return start(num_steps)

        monkeypatch.setattr(batched.batcher, "start", noting)
        given = {k: v for k, v in prompt.items() if k not in ("height", "width")}
        latents(batched, given, 0, image=torch.rand(1, 3, 32, 32), strength=0.5)
    assert lengths == [2]


def test_pipelines_that_move_their_modules_are_refused():
    pipe, _ = made("Stable Diffusion")
    pipe._all_hooks = [object()]
    with pytest.raises(fxcache.ConfigError, match="moves its modules"):
        BatchedPipeline(pipe)


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


def test_one_thread_at_a_time_runs_what_is_not_the_denoiser():
    """Tokenizers change their own state during a call, and so do decoders of videos."""
    pipe, prompt = made("Stable Diffusion")
    inside, most, encode = [0], [0], pipe.encode_prompt

    def noted(*args: Any, **kwargs: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.1)
        inside[0] -= 1
        return encode(*args, **kwargs)

    pipe.encode_prompt = noted
    with BatchedPipeline(pipe, linger=0.2) as batched:
        together(batched, prompt)
        statistics = batched.batcher.statistics
    assert most == [1]
    assert statistics.mean_batch > 2
