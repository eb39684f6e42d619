"""Tests requests that take turns, in one thread or many: each has the results that it has alone."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from tests import tiny
from tests.loops import last_reason, refreshes
from tests.plain import DiT, dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

POLICY = fxcache.Uniform(interval=3)
STEPS = 8

Request = dict[str, Tensor]


def unet_request(seed: int) -> Request:
    return tiny.inputs(batch=1, seed=seed)


def dit_request(seed: int) -> Request:
    return dit_inputs(batch=1, seed=seed)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Request]]] = {
    "unet": (tiny.small_unet, unet_request),
    "dit": (dit, dit_request),
}


def steps_of(model: nn.Module, request: Request) -> Iterator[Tensor]:
    """Yield after every step of a sampling loop, and at the end the last latents."""
    timesteps = torch.linspace(900, 100, STEPS)
    conditioning = {k: v for k, v in request.items() if k != "sample"}
    latents = request["sample"]
    for t in timesteps:
        predicted = model(latents, t, **conditioning)
        predicted = predicted if isinstance(predicted, Tensor) else predicted.sample
        latents = latents - 0.1 * predicted
        yield latents


@torch.no_grad()
def alone(model: nn.Module, request: Request) -> Tensor:
    *_, last = steps_of(model, request)
    return last


@contextmanager
def optimized(kind: str, compiled: bool = False) -> Iterator[tuple[nn.Module, Any, Any]]:
    """The model, its requests, and the counter of compiled graphs."""
    make, request = MODELS[kind]
    model = fxcache.optimize(make(), policy=POLICY)
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    if compiled:
        model.compile(backend=counter, fullgraph=True)
    yield model, request, counter
    torch._dynamo.reset()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_requests_in_turns_are_exact(kind, compiled):
    with optimized(kind, compiled) as (model, request, counter):
        requests = [request(seed) for seed in range(5)]
        expected = [alone(model, r) for r in requests]
        *_, together = zip(*(steps_of(model, r) for r in requests), strict=True)
        for got, wanted in zip(together, expected, strict=True):
            assert torch.equal(got, wanted)
        assert refreshes(model) == [[0, 3, 6]] * 10
        assert counter.frame_count == (2 if compiled else 0)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", MODELS)
def test_requests_in_eight_threads(kind, compiled):
    with optimized(kind, compiled) as (model, request, _):
        requests = [request(seed) for seed in range(8)]
        expected = [alone(model, r) for r in requests]
        got: dict[int, Tensor] = {}

        def work(index: int) -> None:
            got[index] = alone(model, requests[index])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(got[i], expected[i]) for i in range(8))
        assert refreshes(model)[-8:] == [[0, 3, 6]] * 8


@torch.no_grad()
def test_an_abandoned_request_affects_no_other():
    with optimized("dit") as (model, request, _):
        first, second = request(1), request(2)
        expected = alone(model, second)
        halfway = steps_of(model, first)
        for _ in range(4):
            next(halfway)
        assert torch.equal(alone(model, second), expected)
        del halfway
        again = alone(model, first)
        assert torch.equal(again, alone(fxcache.optimize(dit(), policy=POLICY), first))


@torch.no_grad()
def test_guidance_in_two_named_calls_is_two_trajectories():
    """Both halves share all tensors except the text, as in Wan's pipelines."""
    with optimized("dit") as (model, request, _):
        cond, uncond = request(1), request(2)
        uncond["sample"] = cond["sample"]
        expected = [alone(model, cond), alone(model, uncond)]
        timesteps = torch.linspace(900, 100, STEPS)
        latents = [cond["sample"], uncond["sample"]]
        for t in timesteps:
            for i, half in enumerate((cond, uncond)):
                latents[i] = latents[i] - 0.1 * model(latents[i], t, half["text"])
        assert all(torch.equal(a, b) for a, b in zip(latents, expected, strict=True))


class Announced(DiT, CacheMixin):
    """A transformer whose calls pipelines announce by diffusers' ``cache_context``."""


def announced() -> Any:
    return fxcache.optimize(Announced().eval(), policy=POLICY)


@torch.no_grad()
def test_cache_context_separates_identical_branches():
    model, request = announced(), dit_request(1)
    timesteps = torch.linspace(900, 100, STEPS)
    text = request["text"]
    for t in timesteps:
        for name, latents in (("cond", request["sample"]), ("uncond", request["sample"] + 1)):
            with model.cache_context(name):
                got = model(latents, t, text)
            if t == timesteps[0]:
                assert torch.equal(got, dit(2)(latents, t, text))
    assert refreshes(model) == [[0, 3, 6]] * 2


@torch.no_grad()
def test_cache_context_tells_the_step():
    model, request = announced(), dit_request(1)
    for _ in range(2):
        for index in range(STEPS):
            fresh = torch.full((1,), 500.0)  # the same at every step
            with model.cache_context("cond", step_index=index, num_inference_steps=STEPS):
                model(request["sample"], fresh, request["text"])
    assert refreshes(model) == [[0, 3, 6]] * 2


@torch.no_grad()
def test_a_step_announced_twice_is_two_requests():
    model, plain, request = announced(), dit(2), dit_request(1)
    latents = [request["sample"], torch.randn_like(request["sample"])]
    timestep = torch.tensor([5.0])
    for index in range(STEPS):
        for i, x in enumerate(latents):
            with model.cache_context("cond", step_index=index, num_inference_steps=STEPS):
                got = model(x, timestep, request["text"])
            if index == 0:
                assert torch.equal(got, plain(x, timestep, request["text"]))
            latents[i] = x - 0.1 * got
    assert refreshes(model) == [[0, 3, 6]] * 2


def test_restore_restores_cache_context():
    model = announced()
    assert "cache_context" in vars(type(model))
    fxcache.restore(model)
    assert type(model) is Announced


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_many_keys_in_turns_stay_exact_and_bounded():
    bounded = fxcache.CacheConfig(max_trajectories=16)
    model = fxcache.optimize(dit(), POLICY, cache=bounded)
    requests = {key: dit_request(key) for key in range(24)}
    for timestep in (900, 800):
        for key, inputs in requests.items():
            with fxcache.session(model, key=key):
                got = model(timestep=timestep, **inputs)
            assert torch.equal(got, dit()(timestep=torch.tensor(timestep), **inputs)), key
    report = fxcache.report(model)
    assert report.cached_bytes == 16 * report.captures[0].cut["cache_bytes"]
    assert last_reason(model) == "first call"


class Conditioned(DiT):
    """Shares one tensor among all requests."""

    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> Tensor:
        return super().forward(sample, timestep, text * mask[..., None])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
@pytest.mark.parametrize("numbers", [(100.0, 200.0, 300.0), (400.0, 300.0, 200.0)])
def test_requests_with_a_shared_mask_stay_separate(numbers):
    model, plain = fxcache.optimize(Conditioned().eval(), fxcache.Uniform(3)), Conditioned().eval()
    mask = torch.ones(1, 5)
    for number in numbers:
        inputs = dit_inputs(1, seed=int(number))
        got = model(timestep=number, mask=mask, **inputs)
        assert torch.equal(got, plain(timestep=torch.tensor(number), mask=mask, **inputs))


@torch.no_grad()
@pytest.mark.parametrize("inference", [False, True])
def test_sliced_halves_of_guidance_stay_separate(inference):
    model, plain = fxcache.optimize(Conditioned().eval(), fxcache.Uniform(3)), Conditioned().eval()
    with torch.inference_mode() if inference else torch.no_grad():
        sample, both, mask = dit_inputs(1)["sample"], torch.randn(2, 5, 16), torch.ones(1, 5)
        cached: dict[int, Tensor] = {}
        for step, t in enumerate(torch.linspace(900, 895, 6)):
            for half in (0, 1):
                got = model(sample, t, both[half : half + 1], mask)
                if step in (0, 3):
                    cached[half] = got
                    assert torch.equal(got, plain(sample, t, both[half : half + 1], mask))
                error = [(got - cached[h]).norm() for h in (half, 1 - half) if h in cached]
                assert error == sorted(error), "nearer to its own half"
            sample = sample + 0.01
    assert sum(map(len, refreshes(model))) <= 6


@torch.no_grad()
def test_calls_continue_during_another_threads_capture():
    """The exporting flag of torch.export is shared by all threads of the process."""
    annotations = dict(torch.fx.traceback.get_current_meta())
    model, inputs = fxcache.optimize(dit(), policy=fxcache.Uniform(1)), dit_inputs()
    calls, failures, done = 0, [], threading.Event()
    timesteps = torch.linspace(900, 100, 2)
    expected = dit()(timestep=timesteps[0], **inputs)

    @torch.no_grad()
    def call(optimised: nn.Module) -> Tensor:
        found: Tensor = optimised(timestep=timesteps[0], **inputs)
        return found

    def calling() -> None:
        nonlocal calls
        while not done.is_set():
            try:
                assert torch.allclose(call(model), expected)
                calls += 1
            except Exception as error:
                failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxcache.FxcacheWarning)
        call(model)
        thread = threading.Thread(target=calling)
        thread.start()
        for depth in (2, 3, 4):
            call(fxcache.optimize(dit(depth), policy=POLICY))
        torch.export.export(dit(2), (), {"timestep": timesteps[0], **inputs})
        done.set()
        thread.join()
    assert not failures
    assert calls
    assert torch.fx.traceback.get_current_meta() == annotations


@torch.no_grad()
def test_an_optimised_model_inside_another_is_not_exported():
    with pytest.warns(fxcache.FxcacheWarning, match="takes no timestep"):
        outer = nn.Sequential(fxcache.optimize(Wrapped().eval(), cut="deep"))
    with pytest.raises(RuntimeError, match="export"):
        torch.export.export(outer, (torch.ones(2, 4),))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deep, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.deep(x) + x)
        return found
