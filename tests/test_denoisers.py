"""Every denoiser of diffusers, small: promises 1 and 2, or the reason why not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fxcache
from bench.denoisers import RECIPES, classes, tiny
from bench.denoisers.recipe import Recipe
from tests.loops import refreshes

# What cannot be captured, and the line of the model that is to blame.
REFUSED = {
    "HiDreamImageTransformer2DModel": "transformer_hidream_image.py:389",
    "SanaWMLTX2RefinerTransformer3DModel": "kv_cache is a SanaWMRefinerKVCache",
    "WanAnimate2Transformer3DModel": "kv_cache is a WanAnimate2KVCache",
}
# Nothing to denoise: it holds weights for UNetMotionModel, and its forward does nothing.
NO_MODEL = {"MotionAdapter"}

# The models' own: an old import, attention that wants compiling, autocast that cannot be.
MODELS_WARN = pytest.mark.filterwarnings(
    "ignore:.FluxPosEmbed. is deprecated:FutureWarning",
    "ignore:flex_attention called without torch.compile:UserWarning",
    "ignore:In CPU autocast, but the target dtype is not supported:UserWarning",
    "ignore:_compile flag on create_block_mask:DeprecationWarning",
)


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def with_other_latent(model: nn.Module, recipe: Recipe, inputs: dict[str, Any]) -> dict[str, Any]:
    """The same call with another latent."""
    name = recipe.latent or next(iter(inputs))
    given = inputs[name]
    if isinstance(given, list):
        return inputs | {name: [other(item) for item in given]}
    return inputs | {name: other(given)}


def other(latent: Tensor) -> Tensor:
    return latent * 0.5 + 1 if latent.is_floating_point() else (latent - 1).clamp_min(0)


def test_there_is_a_recipe_for_every_class():
    assert RECIPES.keys() | NO_MODEL == classes().keys()


@torch.no_grad()
@MODELS_WARN
@pytest.mark.parametrize("kind", sorted(RECIPES.keys() - REFUSED.keys()))
def test_promises_1_and_2(kind):
    recipe = RECIPES[kind]
    model = tiny(recipe)
    inputs = recipe.inputs(model.config, False)
    expected = tensors(model(**inputs))
    policy = fxcache.Explicit(steps=(0,))
    fxcache.optimize(model, policy=policy, latent=recipe.latent)
    with fxcache.session(model):
        refreshed = tensors(model(**inputs))
        reused = tensors(model(**inputs))
        moved = tensors(model(**with_other_latent(model, recipe, inputs)))
    assert refreshes(model) == [[0]]
    assert all(torch.equal(a, b) for a, b in zip(refreshed, expected, strict=True))
    for again, first in zip(reused, refreshed, strict=True):
        assert (again - first).abs().max() <= 1e-5 * first.abs().max()
    if kind != "PriorTransformer":  # predicts from a learned token, which blocks alone tell of x
        assert not torch.equal(moved[0], reused[0]), "a reuse step must follow the latent"


@torch.no_grad()
@MODELS_WARN
@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_refused_with_the_place_and_the_reason(kind):
    recipe = RECIPES[kind]
    model = tiny(recipe)
    inputs = recipe.inputs(model.config, False)
    expected = tensors(model(**inputs))
    fxcache.optimize(model)
    with pytest.raises(fxcache.CaptureError) as caught:
        model(**inputs)
    assert REFUSED[kind] in str(caught.value)
    fxcache.restore(model)
    assert all(torch.equal(a, b) for a, b in zip(tensors(model(**inputs)), expected, strict=True))
