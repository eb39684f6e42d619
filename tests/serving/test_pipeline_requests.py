"""Tests which calls of a pipeline are steps of one request: the next step, with the same prompt."""

from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import torch

import fxcache
from fxcache.serving import BatchedPipeline, Request
from tests import tiny
from tests.pipelines.build import SD_PROMPT
from tests.serving.pictures import (
    latents,
    made,
    optimize,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


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


@pytest.mark.sweep(1)
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
    optimize(pipe.unet, pipe, prompt)
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
    optimize(twice.unet, pipe, prompt)
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
