"""Pipelines of FLUX.2."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.autoencoders import flux2_vae
from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    pictures,
    prompt,
    square,
    steps_of,
    taken,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 64  # the least of a picture to refer to


def flux2(kind: str, options: Mapping[str, Any], **config: Any) -> Any:
    return flow_matching(
        kind,
        denoiser("Flux2Transformer2DModel", **config),
        vae=flux2_vae(levels=3),
        **options,
    )


def inputs(kind: str) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes."""
    return {**taken(kind, prompt(7, 24)), **pictures(kind, SIDE), **square(32)}


def recipe(kind: str, guided: bool = False, **options: Any) -> PipelineRecipe:
    """Build a recipe.

    Args:
        kind: The name of the class.
        guided: Whether it has classifier-free guidance, and not an embedded guidance scale.
        options: Options of the pipeline.
    """
    return PipelineRecipe(
        kind,
        lambda: flux2(kind, options, guidance_embeds=kind == "Flux2Pipeline"),
        lambda: inputs(kind),
        steps=steps_of(kind),
        trajectories={"transformer": 2} if guided else {},
    )


RECIPES = (
    recipe("Flux2Pipeline"),
    recipe("Flux2KleinPipeline", guided=True, is_distilled=False),
    recipe("Flux2KleinInpaintPipeline", guided=True, is_distilled=False),
    recipe("Flux2KleinKVPipeline"),
)
