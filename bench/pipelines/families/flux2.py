"""Pipelines of FLUX.2."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.autoencoders import flux2_vae
from bench.pipelines.parts import (
    assembled,
    denoiser,
    mask,
    picture,
    prompt,
    square,
    taken,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 64  # the least of a picture to refer to


def flux2(kind: str, options: Mapping[str, Any], **config: Any) -> Any:
    return assembled(
        kind,
        transformer=denoiser("Flux2Transformer2DModel", **config),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=flux2_vae(levels=3),
        **options,
    )


def inputs(kind: str) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes."""
    usual = {
        **prompt(7, 24),
        "image": picture(SIDE),
        "mask_image": mask(SIDE),
        "image_reference": picture(SIDE, seed=1),
        "strength": 0.7,
    }
    return {**taken(kind, usual), **square(32)}


def recipe(kind: str, guided: bool = False, **options: Any) -> PipelineRecipe:
    """Build a recipe; with a strength of 0.7 seven of ten steps are called.

    Args:
        kind: The name of the class.
        guided: Whether it has classifier-free guidance, and not an embedded guidance scale.
        options: Options of the pipeline.
    """
    shortened = bool(taken(kind, {"strength": 1.0}))
    return PipelineRecipe(
        kind,
        lambda: flux2(kind, options, guidance_embeds=kind == "Flux2Pipeline"),
        lambda: inputs(kind),
        steps=10 if shortened else 7,
        trajectories={"transformer": 2} if guided else {},
    )


RECIPES = (
    recipe("Flux2Pipeline"),
    recipe("Flux2KleinPipeline", guided=True, is_distilled=False),
    recipe("Flux2KleinInpaintPipeline", guided=True, is_distilled=False),
    recipe("Flux2KleinKVPipeline"),
)
