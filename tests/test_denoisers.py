"""Tests every denoiser of diffusers at a small size: promises 1 and 2."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fxcache
from bench.denoisers import RECIPES, classes, tiny
from bench.denoisers.recipe import Recipe
from fxcache.capture.capture import capture
from fxcache.partition.choose import choose
from fxcache.partition.cut import CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.partition.points import groups_of
from fxcache.policies import Caches, FirstBlock, TeaCache
from fxcache.rewrite.variants import NOTHING, Variants, rewrite
from fxcache.signature import Signature
from tests.loops import refreshes

# Classes with submodules that graphs call as they are, so that no artifact can hold them.
CALLED_AS_IS = {"HiDreamImageTransformer2DModel"}
# Nothing to denoise: it holds weights for UNetMotionModel, and its forward does nothing.
NO_MODEL = {"MotionAdapter"}

# The models' own: an old import, attention that wants compiling, autocast that cannot be.
MODELS_WARN = pytest.mark.filterwarnings(
    "ignore:torch.export cannot trace some submodules:fxcache.FxcacheWarning",
    # A decoder of tokens, which no sampling loop calls.
    "ignore:MiniMaxMusic3RVQDepthDecoder.forward takes no timestep:fxcache.FxcacheWarning",
    "ignore:.FluxPosEmbed. is deprecated:FutureWarning",
    "ignore:flex_attention called without torch.compile:UserWarning",
    "ignore:In CPU autocast, but the target dtype is not supported:UserWarning",
    "ignore:_compile flag on create_block_mask:DeprecationWarning",
)


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def with_other_latent(model: nn.Module, recipe: Recipe, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the same call with the latent of the next step."""
    name = recipe.latent or next(iter(inputs))
    given = inputs[name]
    if isinstance(given, list):
        return inputs | {name: [other(item) for item in given]}
    return inputs | {name: other(given)}


def other(latent: Tensor) -> Tensor:
    if not latent.is_floating_point():
        return (latent - 1).clamp_min(0)
    return latent + 0.1 * torch.linspace(-1, 1, latent.numel()).reshape(latent.shape)


def test_there_is_a_recipe_for_every_class():
    assert RECIPES.keys() | NO_MODEL == classes().keys()


# With `make test-slow`: capture takes long even of their small versions, and their kind is among
# the others here or, U-Nets over frames, in `test_video_unets.py`.
LONG = {
    "AnyFlowFARTransformer3DModel",
    "BriaFibo2Transformer2DModel",
    "ChromaTransformer2DModel",
    "ChronoEditTransformer3DModel",
    "CogView4Transformer2DModel",
    "ConsisIDTransformer3DModel",
    "DreamLiteUNetModel",
    "EasyAnimateTransformer3DModel",
    "HeliosTransformer3DModel",
    "HunyuanDiT2DModel",
    "HunyuanImageTransformer2DModel",
    "HunyuanVideo15Transformer3DModel",
    "HunyuanVideoFramepackTransformer3DModel",
    "HunyuanVideoTransformer3DModel",
    "I2VGenXLUNet",
    "JoyImageEditPlusTransformer3DModel",
    "Kandinsky3UNet",
    "Kandinsky6SRTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "MochiTransformer3DModel",
    "MotifVideoTransformer3DModel",
    "NucleusMoEImageTransformer2DModel",
    "OmniGenTransformer2DModel",
    "SanaVideoTransformer3DModel",
    "SanaWMTransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "UNet3DConditionModel",
    "UNetMotionModel",
    "UNetSpatioTemporalConditionModel",
    "WanAnimate2Transformer3DModel",
    "WanAnimateTransformer3DModel",
    "WanVACETransformer3DModel",
}


@pytest.mark.sweep(6)
@torch.no_grad()
@MODELS_WARN
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in LONG else [])
        for kind in sorted(RECIPES)
    ],
)
def test_promises_1_and_2(kind):
    recipe = RECIPES[kind]
    model: Any = tiny(recipe)
    inputs = recipe.inputs(model.config, False)
    expected = tensors(model(**inputs))
    policy = fxcache.Explicit(steps=(0,))
    fxcache.optimize(model, policy=policy, capture=fxcache.CaptureConfig(latent=recipe.latent))
    with fxcache.session(model, key="one request"):
        refreshed = tensors(model(**inputs))
        reused = tensors(model(**inputs))
        moved = tensors(model(**with_other_latent(model, recipe, inputs)))
    # Tokens that are all hidden connect no calls. In its pipelines the loop tells the steps.
    assert refreshes(model) == ([[0], [0]] if kind == "UVit2DModel" else [[0]])
    assert all(torch.equal(a, b) for a, b in zip(refreshed, expected, strict=True))
    for again, first in zip(reused, refreshed, strict=True):
        assert (again - first).abs().max() <= 1e-5 * first.abs().max()
    if kind != "PriorTransformer":  # predicts from a learned token, which blocks alone tell of x
        assert not torch.equal(moved[0], reused[0]), "a reuse step must follow the latent"


# In CI; the other classes with `make test-slow`.
SAMPLED = {
    "CogVideoXTransformer3DModel",
    "DiTTransformer2DModel",
    "FluxTransformer2DModel",
    "LTX2VideoTransformer3DModel",
    "LatteTransformer3DModel",
    "SD3Transformer2DModel",
    "UNet2DConditionModel",
    "WanTransformer3DModel",
}
# Features that classes lack: a timestep that modulates, numbered blocks, attention in them.
MISSING: dict[str, set[str]] = {
    "DreamLiteTransformer2DModel": {"TeaCache"},
    "MiniMaxMusic3RVQDepthDecoder": {"TeaCache"},
    "StableCascadeUNet": {"TeaCache"},
    "Transformer2DModel": {"TeaCache"},
    "TransformerTemporalModel": {"TeaCache"},
    "UNet1DModel": {"attention"},
    "UNet2DModel": {"attention"},
    "UVit2DModel": {"TeaCache"},
}


@pytest.mark.sweep(2)
@torch.no_grad()
@MODELS_WARN
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in SAMPLED else pytest.mark.slow)
        for kind in sorted(RECIPES)
    ],
)
def test_signals_and_cache_points_are_found(kind):
    """Signals and separate cache points change no result."""
    recipe = RECIPES[kind]
    model: Any = tiny(recipe)
    inputs = recipe.inputs(model.config, False)
    expected = tensors(model(**inputs))
    signature = Signature(type(model), recipe.latent)
    call = signature.call((), inputs)
    frontier = Frontier(capture(model, signature, call))
    missing = set()
    for policy in (TeaCache(), FirstBlock()):
        try:
            variants = rewrite(frontier, choose(frontier, "auto", policy), "")
        except fxcache.CutError:
            missing.add(type(policy).__name__)
            continue
        _, *shared = variants.prefix().module(*call.tensors)
        results = variants.variant(NOTHING, continued=True).module(*call.tensors, *shared)
        assert equal(results, variants, expected), policy
        skip = variants.variant(variants.all, continued=True).module
        again = skip(*call.tensors, *shared, *results[variants.num_outputs :])
        assert near(again, variants, expected), policy
    for caches in (Caches.BLOCKS, Caches.ATTENTION, Caches.COMPONENTS):
        try:
            groups = groups_of(frontier, caches)
        except fxcache.CutError:
            missing.add(caches.value)
            continue
        points = tuple(point for held in groups.values() for point in held)
        variants = rewrite(frontier, CutPlan(frontier.price(points, ""), groups, ""), "")
        results = variants.full(*call.tensors)
        assert equal(results, variants, expected), caches
        again = variants.cached_skip(*call.tensors, *results[variants.num_outputs :])
        assert near(again, variants, expected), caches
    assert missing == MISSING.get(kind, set())


def equal(results: Any, variants: Variants, expected: list[Tensor]) -> bool:
    found = tensors(results[: variants.program.out_spec.num_leaves])  # without state objects
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def near(results: Any, variants: Variants, expected: list[Tensor]) -> bool:
    found = tensors(results[: variants.program.out_spec.num_leaves])  # without state objects
    pairs = zip(found, expected, strict=True)
    return all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in pairs)
