"""Tests that a request that fails, is cancelled or is refused touches no other request."""

import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.codecs.drift import DriftCorrection
from fxcache.serving import Batcher
from tests.plain import dit
from tests.serving.requests import CAPTURE, Wish, alone, assert_close, in_rounds, optimized

pytestmark = pytest.mark.usefixtures("shared_captures")
POISON = 1e30


class PoisonedError(RuntimeError):
    """Raised by a graph that gets a poisoned row."""


def refusing_poison(module: nn.Module) -> Any:
    """Return a callable that fails if one of its rows is poisoned, whatever the others are."""

    def call(*inputs: Tensor) -> Any:
        if bool((inputs[0] == POISON).any()):
            raise PoisonedError
        return module(*inputs)

    return call


def test_a_step_that_fails_fails_alone_and_may_be_tried_again():
    batcher = Batcher(optimized(), compiler=refusing_poison)
    wishes = [Wish(seed) for seed in range(3)]
    requests = [batcher.start(8) for _ in wishes]
    latents = [[wish.inputs()["sample"]] for wish in wishes]
    for step, t in enumerate(Wish(0).timesteps()):
        inputs = [found[-1] for found in latents]
        if step == 4:
            inputs[1] = torch.full_like(inputs[1], POISON)
        texts = [wish.inputs()["text"] for wish in wishes]
        calls = zip(requests, inputs, texts, strict=True)
        futures = [request.submit(x, t.expand(1), text) for request, x, text in calls]
        batcher.run_round()
        if step == 4:
            with pytest.raises(PoisonedError):
                futures[1].result()
            assert requests[1].trajectory.index == 4
            futures[1] = requests[1].submit(latents[1][-1], t.expand(1), texts[1])
            batcher.run_round()
        for found, future in zip(latents, futures, strict=True):
            found.append(found[-1] - 0.1 * future.result())
    assert_close([found[1:] for found in latents], [alone(wish) for wish in wishes])


class FailsAt(fxcache.Policy):
    """Refreshes, and fails at one step."""

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        if step.index == 2:
            raise fxcache.ScheduleError("planted", where="here", remedy="none")
        return fxcache.Decision(True, "by this test")


def test_a_policy_that_fails_fails_its_own_request_only():
    batcher = Batcher(optimized())
    broken = batcher.start(8, FailsAt())
    given = Wish(9).inputs()
    for step in range(3):
        future = broken.submit(given["sample"], torch.tensor([1.0]), given["text"])
        if step == 2:
            found, _ = in_rounds(batcher, [Wish(0), Wish(1)])
            with pytest.raises(fxcache.ScheduleError, match="planted"):
                future.result()
            assert_close(found, [alone(Wish(0)), alone(Wish(1))])
        else:
            batcher.run_round()


def test_a_cancelled_step_does_not_run_and_may_be_submitted_again():
    batcher = Batcher(optimized())
    request, other = batcher.start(2), batcher.start(2)
    given, t = Wish(0).inputs(), torch.tensor([500.0])
    call = given["sample"], t, given["text"]
    first, kept = request.submit(*call), other.submit(*call)
    assert first.cancel()
    assert batcher.run_round() == 1
    assert request.trajectory.index == 0
    again = request.submit(*call)
    batcher.run_round()
    torch.testing.assert_close(again.result(), kept.result())


def test_a_closed_request_is_cancelled_and_the_others_do_not_wait_for_it():
    with Batcher(optimized(), linger=60) as batcher:
        leaving, staying = batcher.start(2), batcher.start(2)
        given, t = Wish(0).inputs(), torch.tensor([500.0])
        future = staying.submit(given["sample"], t, given["text"])
        assert not future.done()  # the other request may send its step for a minute
        leaving.close()
        assert future.result(timeout=30).shape == given["sample"].shape
        with pytest.raises(fxcache.StateError, match="the request is closed"):
            leaving(given["sample"], t, given["text"])


def test_closing_the_batcher_cancels_what_waits():
    batcher = Batcher(optimized(), linger=60)
    with batcher:
        request, _ = batcher.start(2), batcher.start(2)
        given = Wish(0).inputs()
        future = request.submit(given["sample"], torch.tensor([500.0]), given["text"])
    with pytest.raises(CancelledError):
        future.result(timeout=5)
    with pytest.raises(fxcache.StateError, match="the batcher is closed"):
        batcher.start(2)
    assert not [t for t in threading.enumerate() if t.name == "fxcache-batcher"]


def test_steps_of_one_request_follow_one_another_and_end():
    batcher = Batcher(optimized())
    request = batcher.start(1)
    given = Wish(0).inputs()
    call = given["sample"], torch.tensor([500.0]), given["text"]
    future = request.submit(*call)
    with pytest.raises(fxcache.StateError, match="the step before has not ended"):
        request.submit(*call)
    batcher.run_round()
    future.result()
    with pytest.raises(fxcache.StateError, match="has made its 1 steps"):
        request.submit(*call)


def test_a_call_that_cannot_be_joined_is_refused_when_it_is_submitted():
    batcher = Batcher(optimized())
    given, request = Wish(0, rows=2).inputs(), batcher.start(3)
    with pytest.raises(fxcache.ConfigError, match="text has the shape"):
        request(given["sample"], torch.ones(2), given["text"][:1])
    big = Wish(0, rows=9).inputs()
    with pytest.raises(fxcache.ConfigError, match="a call has 9 rows, and max_batch is 8"):
        request(big["sample"], torch.ones(9), big["text"])
    with pytest.raises(TypeError):
        request(given["sample"], torch.ones(2))
    assert batcher.run_round() == 0


class Folded(nn.Module):
    """A model that joins the batch with another dimension inside."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = dit(2)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        halves = sample.reshape(-1, 8, 4).repeat(1, 2, 1)  # [2 B, 16, 4]
        twice = (timestep.repeat_interleave(2), text.repeat_interleave(2, 0))
        found: Tensor = self.dit(halves, *twice)
        return found[:, :8].reshape(sample.shape)


def corrected() -> nn.Module:
    model = dit(3)
    correction = DriftCorrection({"layers.1.0": torch.zeros(8, 2, 16)})
    plan = fxcache.Plan.of(model, fxcache.Uniform(3), "layers.1")
    return fxcache.optimize(model, plan=replace(plan, correction=correction), capture=CAPTURE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Batcher(optimized(capture=None)),
            "no input has a first dimension that may vary",
        ),
        (lambda: Batcher(dit()), "is not optimised"),
        (
            lambda: Batcher(optimized(guidance=fxcache.GuidanceCache())),
            "GuidanceCache splits batches",
        ),
        (
            lambda: Batcher(optimized(cache=fxcache.CacheConfig(kernels=True))),
            "the kernels' statistics",
        ),
        (lambda: Batcher(corrected()), "a correction has one value"),
        (lambda: Batcher(optimized(), max_batch=1), "max_batch=1 is no whole number"),
        (lambda: Batcher(optimized(), buckets=(1, 8)), "do not ascend"),
        (lambda: Batcher(optimized(), buckets=(2, 4)), "to max_batch=8"),
        (lambda: Batcher(optimized(), linger=-1), "must be at least 0"),
        (lambda: Batcher(optimized(), align=True), "must be at least 0"),
        (lambda: Batcher(optimized()).start(0), "num_steps=0"),
        (lambda: Batcher(optimized()).start(3, "Uniform"), "is no policy"),  # type: ignore[arg-type]
        (
            lambda: Batcher(optimized()).start(3, fxcache.FirstBlock(0.3)),
            "FirstBlock observes another signal than Uniform",
        ),
        (
            lambda: Batcher(optimized()).start(3, fxcache.TaylorSeer(3)),
            "TaylorSeer has another forecast than Uniform",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(make, message):
    with pytest.raises((fxcache.ConfigError, fxcache.StateError), match=message):
        make()


def test_a_model_that_folds_the_batch_is_refused():
    model = fxcache.optimize(Folded().eval(), fxcache.Uniform(3), capture=CAPTURE)
    batcher = Batcher(model)
    given = Wish(0, rows=2).inputs()
    future = batcher.start(3).submit(given["sample"], torch.ones(2), given["text"])
    batcher.run_round()
    with pytest.raises(fxcache.ConfigError, match="joins the batch"):
        future.result()
