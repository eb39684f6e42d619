"""Tests that a call of diffusers' pipeline is one run, though only its denoiser is optimised."""

import gc
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

import fxcache
from fxcache.runtime import enclosing
from fxcache.runtime.module import engine_of
from tests.loops import refreshes
from tests.runtime.pipeline import PROMPT, Denoiser

pytestmark = pytest.mark.usefixtures("shared_captures")
STEPS = 6


class Sampler(DiffusionPipeline):
    """Timesteps are new tensors, and latents move so far that they do not identify a run."""

    def __init__(self, transformer: Denoiser):
        super().__init__()
        self.register_modules(transformer=transformer)
        self.scheduler = SimpleNamespace()

    @torch.no_grad()
    def __call__(self, steps: int = STEPS, look: Callable[..., Any] = lambda step, latent: None):
        """Draw a latent [1, 4]; call ``look`` before each step."""
        for i in range(steps):
            latent = torch.randn(1, 4, generator=torch.Generator().manual_seed(i))
            look(i, latent)
            latent = self.transformer(latent, torch.tensor(900.0 - 100 * i), PROMPT)
        return latent


def optimized() -> tuple[Sampler, Denoiser]:
    model = Denoiser().eval()
    fxcache.optimize(model, fxcache.Uniform(3))
    return Sampler(model), model


def test_each_call_is_one_run():
    pipe, model = optimized()
    first = pipe()
    for _ in range(3):  # the frame of each call is likely to get the address of the last one's
        assert torch.equal(pipe(), first)
    assert refreshes(model) == [[0, 3]] * 4
    engine = engine_of(model)
    assert engine is not None
    assert engine.store.counts.by_latent == 0


def test_a_call_that_fails_ends_its_run():
    pipe, model = optimized()

    def fail(step: int, latent: Tensor) -> None:
        if step == 1:
            raise KeyError(step)

    with pytest.raises(KeyError):
        pipe(look=fail)
    pipe()
    assert refreshes(model) == [[0], [0, 3]]


def test_a_call_inside_another_is_a_run_of_its_own():
    pipe, model = optimized()
    pipe(look=lambda step, latent: pipe(steps=2) if step == 1 else None)
    assert refreshes(model) == [[0, 3], [0]]


def test_calls_in_two_threads_are_two_runs():
    pipe, model = optimized()
    turn = threading.Barrier(2)
    calls = [
        threading.Thread(target=lambda: pipe(look=lambda step, latent: turn.wait(60)))
        for _ in range(2)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert refreshes(model) == [[0, 3]] * 2


def test_a_call_leaves_nothing_behind():
    pipe, _ = optimized()
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def look(step: int, latent: Tensor) -> None:
        seen.append(weakref.ref(latent))
        alive.append(sum(ref() is not None for ref in seen))

    gc.disable()
    try:
        pipe(look=look)
        assert max(alive) == 1, "the latents of earlier steps are alive"
        assert not any(ref() is not None for ref in seen)
        assert not enclosing._calls
    finally:
        gc.enable()


def test_an_open_session_comes_first():
    pipe, model = optimized()
    marked: list[int] = []
    with fxcache.session(model, num_steps=STEPS):
        pipe(look=lambda step, latent: marked.append(len(enclosing._calls)))
    assert marked == [0] * STEPS
    assert refreshes(model) == [[0, 3]]


def test_callables_that_are_no_pipelines_are_left_alone():
    _, model = optimized()

    class Loop:
        def __call__(self) -> list[str]:
            with torch.no_grad():
                model(torch.zeros(1, 4), torch.tensor(900.0), PROMPT)
            return list(locals())

    assert Loop()() == ["self", "model"]
    assert not enclosing._calls
