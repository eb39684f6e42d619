"""Compares with diffusers' own caches: decisions and latents are equal."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    TaylorSeerCacheConfig,
)
from torch import Tensor

import fxcache
from bench.denoisers import RECIPES, tiny
from fxcache.forecasts import Taylor
from fxcache.policies import (
    Explicit,
    FasterCache,
    FirstBlock,
    GuidanceCache,
    MagCache,
    Policy,
    Uniform,
)
from tests.loops import refreshes

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 12


def model_and_call(kind: str) -> tuple[Any, dict[str, Any]]:
    model: Any = tiny(RECIPES[kind])
    call = RECIPES[kind].inputs(model.config, False)
    return model, {k: v for k, v in call.items() if k not in ("timestep", "return_dict")}


@torch.no_grad()
def denoise(predict: Callable[..., Any], call: dict[str, Any]) -> Tensor:
    """Return the latent after ``STEPS`` Euler steps from 1 to 0."""
    given = dict(call)
    latent = given.pop("hidden_states")
    times = torch.linspace(1, 0, STEPS + 1)
    for now, then in pairwise(times):
        timestep = torch.full((len(latent),), float(now))
        (predicted,) = predict(hidden_states=latent, timestep=timestep, **given, return_dict=False)
        latent = latent + (then - now) * predicted[:, : latent.shape[1]]
    return latent


def with_fxcache(kind: str, policy: Policy, **options: Any) -> tuple[Tensor, list[int]]:
    model, call = model_and_call(kind)
    fxcache.optimize(model, policy=policy, **options)
    with fxcache.session(model, num_steps=STEPS):
        return denoise(model, call), refreshes(model)[-1]


def with_diffusers(kind: str, config: object) -> Tensor:
    model, call = model_and_call(kind)
    model.enable_cache(config)

    def predict(**inputs: Any) -> Any:
        with model.cache_context("run"):
            return model(**inputs)

    return denoise(predict, call)


FLUX = "FluxTransformer2DModel"


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.02, range(12)), (0.7, None), (0.8, None), (9.0, [0])]
)
def test_first_block_cache(threshold, expected):
    latent, refreshed = with_fxcache(FLUX, FirstBlock(threshold))
    assert torch.equal(latent, with_diffusers(FLUX, FirstBlockCacheConfig(threshold=threshold)))
    if expected is None:
        assert 1 < len(refreshed) < STEPS, "a threshold that tells nothing"
    else:
        assert refreshed == list(expected)


@pytest.mark.parametrize("threshold", [0.06, 0.3])
def test_magcache(threshold):
    ratios = [1.0, 1.2, 1.1, 1.05, 1.04, 1.02, 1.0, 0.98, 0.97, 0.95, 0.9, 0.85]
    config = MagCacheConfig(threshold=threshold, num_inference_steps=STEPS, mag_ratios=ratios)
    latent, refreshed = with_fxcache(FLUX, MagCache(tuple(ratios), threshold))
    assert torch.equal(latent, with_diffusers(FLUX, config))
    assert 1 < len(refreshed) < STEPS


@pytest.mark.parametrize("order", [0, 1, 2])
def test_taylorseer(order):
    """diffusers refreshes steps 0, 1, 2, then 3 + 1 and every fourth. A list does the same."""
    depth = len(model_and_call(FLUX)[0].transformer_blocks)
    cut = [f"transformer_blocks.{i}.ff" for i in range(depth)]
    config = TaylorSeerCacheConfig(
        cache_interval=4,
        disable_cache_before_step=3,
        max_order=order,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=[r"transformer_blocks\.\d+\.ff"],
    )
    policy = Explicit(steps=(0, 1, 2, 4, 8))
    forecast = Taylor(order) if order else None
    latent, refreshed = with_fxcache(FLUX, policy, cut=cut, forecast=forecast)
    assert refreshed == [0, 1, 2, 4, 8]
    torch.testing.assert_close(latent, with_diffusers(FLUX, config), rtol=1e-4, atol=1e-5)


def test_fastercaches_attention_against_hooks():
    """Hooks return a + (a - b) w, from the outputs a and b at the last two steps."""
    latent, refreshed = with_fxcache(FLUX, FasterCache(first=3))
    assert refreshed == [0, 1, 2, 4, 6, 8, 10]
    model, call = model_and_call(FLUX)
    for path in ("transformer_blocks", "single_transformer_blocks"):
        for block in getattr(model, path):
            block.attn.forward = extrapolated(block.attn.forward, refreshed)
    expected = denoise(model, call)
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)


def extrapolated(forward: Callable[..., Any], refreshed: list[int]) -> Callable[..., Any]:
    held: list[Any] = []
    step = -1

    def cached(*args: Any, **kwargs: Any) -> Any:
        nonlocal step
        step += 1
        if step in refreshed:
            held.append(forward(*args, **kwargs))
            return held[-1]
        weight = step / STEPS
        if isinstance(held[-1], Tensor):
            return held[-1] + (held[-1] - held[-2]) * weight
        return tuple(a + (a - b) * weight for a, b in zip(held[-1], held[-2], strict=True))

    return cached


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # a warning of diffusers
@pytest.mark.parametrize(("interval", "factor"), [(2, 1.1), (5, 1.0)])
def test_fastercaches_guidance(interval, factor):
    """diffusers multiplies the stored difference again: test factor 1, or one step."""
    kind, begins = "CogVideoXTransformer3DModel", 4 if interval == 2 else 5
    now = 0.0
    config = FasterCacheConfig(
        spatial_attention_block_skip_range=1,  # all attentions are computed
        spatial_attention_block_identifiers=["transformer_blocks"],
        attention_weight_callback=lambda _: 0.0,
        unconditional_batch_skip_range=interval,
        unconditional_batch_timestep_skip_range=(-1, 1 - begins / STEPS + 1e-3),
        low_frequency_weight_callback=lambda _: factor,
        high_frequency_weight_callback=lambda _: 1.0,
        tensor_format="BFCHW",
        current_timestep_callback=lambda: now,
    )

    def note_of(model: Any) -> Callable[..., Any]:
        def predict(**inputs: Any) -> Any:
            nonlocal now
            now = float(inputs["timestep"][0])
            with model.cache_context("run"):
                return model(**inputs)

        return predict

    model, call = guided(kind)
    model.enable_cache(config)
    expected = denoise_guided(note_of(model), call)
    model, call = guided(kind)
    cache = GuidanceCache(
        interval=interval, start=begins / STEPS, low=factor - 1, high=0.0, turn=1.0
    )
    fxcache.optimize(model, policy=Uniform(1), guidance=cache)
    with fxcache.session(model, num_steps=STEPS):
        latent = denoise_guided(model, call)
    halved = fxcache.report(model).runs[-1].halved
    assert halved == [i for i in range(begins, STEPS) if i % interval]
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)
    model, call = guided(kind)
    assert not torch.allclose(latent, denoise_guided(model, call), rtol=1e-2, atol=1e-3)


def guided(kind: str) -> tuple[Any, dict[str, Any]]:
    """Return a model, and a call with a text for each half."""
    model, call = model_and_call(kind)
    text = call["encoder_hidden_states"]
    return model, call | {"encoder_hidden_states": torch.cat([torch.zeros_like(text), text])}


@torch.no_grad()
def denoise_guided(predict: Callable[..., Any], call: dict[str, Any]) -> Tensor:
    """Denoise with both halves of the guidance in one batch."""
    given = dict(call)
    latent = given.pop("hidden_states")
    times = torch.linspace(1, 0, STEPS + 1)
    for now, then in pairwise(times):
        timestep = torch.full((2 * len(latent),), float(now))
        inputs = {"hidden_states": torch.cat([latent] * 2), "timestep": timestep, **given}
        u, c = predict(**inputs, return_dict=False)[0].chunk(2)
        latent = latent + (then - now) * (u + 3 * (c - u))[..., : latent.shape[-1]]
    return latent
