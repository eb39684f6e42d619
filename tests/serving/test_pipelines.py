"""Tests that many threads can call one pipeline at once, and each gets what it gets alone."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import fxcache
from bench.pipelines.parts import denoiser, noise
from fxcache.serving import BatchedPipeline, rows_of
from tests.pipelines.build import FLUX_PROMPT
from tests.serving.pictures import (
    MOST,
    PIPELINES,
    error,
    flux,
    latents,
    made,
    options_of,
    stable_diffusion,
    together,
    wan,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.mark.sweep(1)
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
