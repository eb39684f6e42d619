"""Tests denoisers as people write them, in loops as people write them."""

import math
import types
from abc import ABC
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.loops import refreshes, steps
from tests.models_people_write import (
    CHANNELS,
    TOKENS,
    FixedPoint,
    Functional,
    PartsOneByOne,
    UNet,
    VideoAndAudio,
)

STEPS, INTERVAL = 12, 3
Loop = Callable[[nn.Module], Tensor]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def noise(seed: int = 0) -> Tensor:
    return torch.randn(2, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))


def sigmas() -> Tensor:
    return torch.linspace(10, 0.1, STEPS)


def over_elements(model: nn.Module) -> Tensor:
    """A loop over the elements of one tensor."""
    x = noise()
    for t in sigmas():
        x = x - 0.05 * model(x, t)
    return x


def over_floats(model: nn.Module) -> Tensor:
    """A sampler that computes with Python floats, and passes them."""
    x, known = 10 * noise(), [10 * 0.8**i for i in range(STEPS + 1)]
    for sigma, following in pairwise(known):
        denoised = x - sigma * model(x / math.sqrt(sigma**2 + 1), torch.tensor(sigma))
        x = x + (following - sigma) * (x - denoised) / sigma
    return x


def heun_with_ones(model: nn.Module) -> Tensor:
    """A sampler of k-diffusion: it passes ``sigma * s_in``, and calls twice a step."""
    x, s_in, known = 10 * noise(), torch.ones(2), sigmas()
    for i in range(STEPS - 1):
        slope = model(x / (known[i] ** 2 + 1).sqrt(), known[i] * s_in)
        ahead = x + slope * (known[i + 1] - known[i])
        again = model(ahead / (known[i + 1] ** 2 + 1).sqrt(), known[i + 1] * s_in)
        x = x + (slope + again) / 2 * (known[i + 1] - known[i])
    return x


def video_and_audio(model: nn.Module) -> Tensor:
    video, audio = noise(0), noise(1)[:, : TOKENS // 2]
    for t in sigmas():
        first, second = model(video, audio, t)
        video, audio = video - 0.05 * first, audio - 0.05 * second
    return torch.cat([video, audio], 1)


class TakesFloats(Functional):
    """It takes a sigma as a Python float too, and computes with it in Python."""

    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        time = sigma if isinstance(sigma, Tensor) else torch.full((1,), float(sigma))
        return super().forward(x, time) / (1 + sigma**2) ** 0.5


def python_floats(model: nn.Module) -> Tensor:
    x = noise()
    for i in range(STEPS):
        x = x - 0.05 * model(x, 10 * 0.8**i)
    return x


class TimeFirst(Functional):
    """A velocity field as solvers of differential equations call it."""

    def forward(self, t: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, t)


def differential_equation(model: nn.Module) -> Tensor:
    """Euler's method, with a new tensor for each time."""
    x = noise()
    for t in torch.linspace(0.1, 0.9, STEPS).tolist():
        x = x + 0.02 * model(torch.tensor(t), x)
    return x


class SelfConditioned(UNet):
    """It takes its own last result too; the first call has none."""

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        earlier = torch.zeros_like(x) if x_self_cond is None else x_self_cond
        return super().forward(x + 0.1 * earlier, t)


def self_conditioned(model: nn.Module) -> Tensor:
    x, predicted = noise(), None
    for t in sigmas():
        predicted = model(x, t, predicted)
        x = x - 0.05 * predicted
    return x


class Field(ABC, nn.Module):
    """A base class of models that is not derived from a module first."""


class OfAnotherBase(Field, UNet):
    pass


def patched_instance() -> nn.Module:
    """A U-Net of whose blocks one got another ``forward``, as extensions do."""
    model = UNet()

    def forward(self: Any, h: Tensor, time: Tensor) -> Tensor:
        return h + 0.5 * self.inner(h) * torch.tanh(self.time(time))[:, :, None]

    vars(model.middle)["forward"] = types.MethodType(forward, model.middle)
    return model


def wrapped_block() -> nn.Module:
    """A U-Net of whose blocks one calls its old ``forward`` inside a new one."""
    model = UNet()
    block: Any = model.up[0]
    old = block.forward
    block.forward = lambda h, time: 0.9 * old(h, time) + 0.1 * h
    return model


def wrapped_class() -> nn.Module:
    """A U-Net inside a module that only passes its calls on."""

    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(*args, **kwargs)

    return Wrapper(UNet())


def check(model: nn.Module, loop: Loop, capture: fxcache.CaptureConfig | None = None) -> nn.Module:
    """Check promise 1, reuse and repetition; return the model that refreshes every third step."""
    model.eval()
    plain = loop(model)
    fxcache.optimize(model, fxcache.Uniform(1), capture=capture)
    assert torch.equal(loop(model), plain)
    fxcache.optimize(model, fxcache.Uniform(INTERVAL), capture=capture)
    earlier = len(steps(model))
    first = loop(model)
    assert not torch.equal(first, plain)
    calls = sum(steps(model)[earlier:])
    refreshed = sum(map(len, refreshes(model)[earlier:]))
    assert refreshed <= math.ceil(calls / INTERVAL) + 1
    assert torch.equal(loop(model), first)
    return model


def saved(model: nn.Module) -> float:
    """The share of the FLOPs that a reuse step saves."""
    (capture,) = fxcache.report(model).captures
    full, reusing = (variant.flops for variant in capture.variants[:2])
    return 1 - reusing / full


@pytest.mark.parametrize("build", [UNet, patched_instance, wrapped_block, wrapped_class])
def test_patched_and_wrapped_u_nets(build):
    check(build(), over_elements)


@pytest.mark.parametrize("kind", [Functional, PartsOneByOne])
def test_the_stream_is_found_without_modules_for_the_blocks(kind):
    assert saved(check(kind(), over_elements)) > 0.95


def test_a_cut_of_additions_can_be_named():
    model = Functional().eval()
    cuts = fxcache.list_cuts(model, x=noise(), t=torch.tensor(3.0))
    longest, shorter = cuts[0], cuts[3]
    assert longest.share_saved > 0.95 > shorter.share_saved > 0.5
    named = fxcache.optimize(model, fxcache.Uniform(INTERVAL), cut=shorter.name)
    over_elements(named)
    assert saved(named) == pytest.approx(shorter.share_saved)


@pytest.mark.parametrize("kind", [Functional, UNet])
@pytest.mark.parametrize("loop", [over_floats, heun_with_ones])
def test_loops_of_k_diffusion(kind, loop):
    check(kind(), loop)


def test_python_floats_as_sigmas():
    check(TakesFloats(depth=2), python_floats)


def test_the_time_comes_first():
    check(TimeFirst(), differential_equation)


def test_self_conditioning():
    check(SelfConditioned(), self_conditioned)


def test_a_class_whose_first_base_is_not_a_module():
    check(OfAnotherBase(), over_elements)


def test_several_latents_in_one_model():
    capture = fxcache.CaptureConfig(step_inputs=frozenset({"audio"}))
    assert saved(check(VideoAndAudio(), video_and_audio, capture)) > 0.75


def test_a_fixed_point_denoiser():
    assert saved(check(FixedPoint(), over_elements)) > 0.9
