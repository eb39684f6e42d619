"""Tests models that are made for few steps: exact refreshes, and what the default does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import pytest

import fxcache
from bench.pipelines.draw import draw, same
from bench.pipelines.families import sana
from bench.pipelines.families.flux import inputs
from bench.pipelines.families.latent_consistency import RECIPES as CONSISTENCY
from bench.pipelines.parts import denoiser, flow_matching, vae
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import SIZE, xl, xl_recipe
from fxcache.runtime.denoisers import denoisers_of
from tests.pipelines.build import runs

pytestmark = pytest.mark.usefixtures("shared_captures")
# The refreshes of the default, by the number of steps.
DEFAULT = {1: [0], 2: [0, 1], 4: [0, 2, 3], 8: [0, 3, 6, 7]}


def lcm() -> PipelineRecipe:
    """Latent consistency: new noise at each step, and the strength of guidance as an input."""
    return CONSISTENCY[0]


def turbo() -> PipelineRecipe:
    """SDXL Turbo: an ancestral solver, and no guidance."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    return replace(
        xl_recipe("StableDiffusionXLPipeline", **SIZE, guidance_scale=0.0),
        build=lambda: xl("StableDiffusionXLPipeline", scheduler=scheduler),
    )


def schnell() -> PipelineRecipe:
    """FLUX schnell: no embedded guidance."""

    def build() -> Any:
        transformer = denoiser("FluxTransformer2DModel", guidance_embeds=False)
        return flow_matching("FluxPipeline", transformer, vae=vae(shift_factor=0.0))

    return PipelineRecipe("FluxPipeline", build, lambda: inputs("FluxPipeline", guided=False))


def sprint() -> PipelineRecipe:
    """SANA Sprint: its scheduler has a timestep more than the model is called for."""
    return next(r for r in sana.RECIPES if r.kind == "SanaSprintPipeline")


def recipe_of(kind: Callable[[], PipelineRecipe], steps: int) -> PipelineRecipe:
    recipe = kind()
    if kind is sprint and steps == 2:  # its own second timestep is for two steps only
        given = {k: v for k, v in recipe.call().items() if k != "intermediate_timesteps"}
        recipe = replace(recipe, call=lambda: given)
    return replace(recipe, steps=steps)


@pytest.mark.sweep(2)
@pytest.mark.filterwarnings("ignore:a run of 2 steps is too short:fxcache.FxcacheWarning")
@pytest.mark.parametrize("whole", [True, False], ids=["pipeline", "denoiser"])
@pytest.mark.parametrize("kind", [sprint, lcm, turbo, schnell])
def test_the_default_in_few_steps(kind, whole):
    pipe = kind().build()
    pipe.set_progress_bar_config(disable=True)
    (model,) = denoisers_of(pipe).values()
    target = pipe if whole else model
    recipes = {steps: recipe_of(kind, steps) for steps in DEFAULT}
    plain = {steps: draw(pipe, recipe) for steps, recipe in recipes.items()}
    fxcache.optimize(target, fxcache.Uniform(1))
    for steps, recipe in recipes.items():
        assert same(draw(pipe, recipe), plain[steps])
    fxcache.optimize(target)
    for steps, recipe in recipes.items():
        first = draw(pipe, recipe)
        assert runs(model) == [DEFAULT[steps]]
        assert same(draw(pipe, recipe), first), "the second run saw something of the first"
        assert runs(model) == [DEFAULT[steps]]
        assert same(first, plain[steps]) == (steps <= 2)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_without_reuse_says_so(steps):
    pipe = schnell().build()
    pipe.set_progress_bar_config(disable=True)
    fxcache.optimize(pipe)
    recipe = recipe_of(schnell, steps)
    if steps == 2:
        with pytest.warns(fxcache.FxcacheWarning, match="a run of 2 steps is too short to reuse"):
            draw(pipe, recipe)
    else:
        draw(pipe, recipe)
    assert f"none of {steps} calls reused cached values" in str(fxcache.report(pipe))
