"""Tests that each call of a pipeline is one run of all denoisers, and its length."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from fxcache.runtime.pipeline import PipelineRun
from fxcache.runtime.session import current_session, open_sessions
from tests import tiny
from tests.loops import refreshes
from tests.runtime.pipeline import (
    PROMPT,
    SIZE,
    Denoiser,
    Encoder,
    Pipeline,
    draw,
    one_expert,
    pipeline,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


def test_each_call_is_one_run():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    first = pipe(seed=1)
    assert torch.equal(pipe(seed=1), first)
    pipe(steps=4)
    for name in ("transformer", "transformer_2"):
        assert refreshes(pipe.components[name]) == [[0, 2], [0, 2], [0]]


def test_nested_calls_are_separate_runs():
    shared = Denoiser().eval()
    outer = Pipeline(text_encoder=Encoder().eval(), transformer=shared)
    inner = Pipeline(text_encoder=Encoder().eval(), transformer=shared)
    for pipe in (outer, inner):
        fxcache.optimize(pipe, fxcache.Uniform(3))
    alone = outer(seed=1), inner(seed=2)
    drawn: list[Tensor] = []
    found = outer(seed=1, inner=lambda: drawn.append(inner(seed=2)))
    assert torch.equal(found, alone[0])
    assert torch.equal(drawn[0], alone[1])
    assert refreshes(shared)[2:] == [[0, 3], [0, 3]]


def test_a_call_inside_the_same_pipelines_call():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = pipe(seed=1)
    assert torch.equal(pipe(seed=1, inner=lambda: pipe(seed=1)), alone)


def test_concurrent_calls_in_threads():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = [pipe(seed=seed) for seed in range(4)]
    found: dict[int, Tensor] = {}
    barrier = threading.Barrier(4)

    def draw(seed: int) -> None:
        found[seed] = pipe(seed=seed, inner=barrier.wait)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], alone[seed]) for seed in range(4))
    assert refreshes(pipe.components["transformer"]) == [[0, 3]] * 8


def test_concurrent_calls_in_tasks():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = [pipe(seed=seed) for seed in range(2)]

    async def both() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(pipe, seed) for seed in range(2)))

    assert all(map(torch.equal, asyncio.run(both()), alone))


def test_a_call_that_fails_ends_its_run():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(9))
    expected = pipe()

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(seed=5, inner=fail)
    assert open_sessions.get() == ()
    assert torch.equal(pipe(), expected)


def schedule(pipe: Any, run: int = -1) -> tuple[int, list[int]]:
    """Return the calls and the refreshes of one of the runs so far."""
    found = fxcache.report(pipe.unet).runs[run]
    return found.steps, found.refreshes


@pytest.mark.parametrize("way", ["error", "interrupt"])
@pytest.mark.parametrize("target", ["pipeline", "session"])
def test_the_length_of_a_run_that_is_cut_short_says_nothing(way, target):
    """The default policy protects the end of a run, which it must know."""

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 2 and way == "error":
            raise KeyboardInterrupt
        pipe._interrupt = step >= 2
        return values

    def cut_short() -> None:
        with suppress(KeyboardInterrupt):
            draw(pipe, **SIZE, callback_on_step_end=stop)

    pipe = tiny.pipeline()
    fxcache.optimize(pipe if target == "pipeline" else pipe.unet)
    if target == "pipeline":
        cut_short()
    else:
        with suppress(KeyboardInterrupt), fxcache.session(pipe.unet):
            cut_short()
            raise KeyboardInterrupt
    assert schedule(pipe)[0] == 3
    draw(pipe, **SIZE)
    assert schedule(pipe) == (6, [0, 3, 5])


def test_a_pipeline_that_leaves_the_last_steps_to_another_one_protects_its_own_end():
    pipe = fxcache.optimize(tiny.xl_pipeline())
    for _ in range(2):
        draw(pipe, **SIZE, num_inference_steps=12, denoising_end=0.7)
        assert schedule(pipe) == (8, [0, 3, 6, 7])


def test_the_length_of_a_session_that_ends_in_an_error_says_nothing():
    model = fxcache.optimize(Denoiser().eval())
    for calls in (3, 8):
        with suppress(KeyboardInterrupt), torch.no_grad(), fxcache.session(model):
            timesteps = torch.linspace(900, 200, 8)
            for timestep in timesteps[:calls]:
                model(torch.zeros(1, 4), timestep, PROMPT)
            raise KeyboardInterrupt
    assert fxcache.report(model).runs[-1].refreshes == [0, 3, 6, 7]


def test_the_innermost_session_wins():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(9))
    model = pipe.components["transformer"]
    seen: list[Any] = []

    def look() -> None:
        session = current_session(model)
        assert session is not None
        seen.append(session.pipeline_run)
        with fxcache.session(model, num_steps=3) as own:
            seen.append(current_session(model) is own)

    with fxcache.session(model, num_steps=50) as outer:
        pipe(inner=look)
        assert current_session(model) is outer
    assert isinstance(seen[0], PipelineRun)
    assert seen[0].modules == (model,)
    assert seen[0].schedule.scheduler is pipe.scheduler
    assert seen[1] is True
