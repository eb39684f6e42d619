"""Pipelines of Chroma."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import (
    assembled,
    denoiser,
    mask,
    masks,
    picture,
    prompt,
    square,
    taken,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def chroma(kind: str) -> Any:
    transformer = denoiser("ChromaTransformer2DModel")
    transformer.register_to_config(guidance_embeds=False)  # the inpainting pipeline reads it
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(kind, transformer=transformer, scheduler=scheduler, vae=vae(shift_factor=0.0))


def inputs(kind: str) -> Mapping[str, Any]:
    usual = {"image": picture(SIDE), "mask_image": mask(SIDE), "strength": 0.7}
    return {**taken(kind, usual), **prompt(7, 24), **masks(dtype=torch.float32), **square(SIDE)}


def recipe(kind: str) -> PipelineRecipe:
    """Build a recipe; with a strength of 0.7 seven of ten steps are called."""
    return PipelineRecipe(
        kind,
        lambda: chroma(kind),
        lambda: inputs(kind),
        steps=10 if taken(kind, {"strength": 1.0}) else 7,
        trajectories={"transformer": 2},
    )


RECIPES = tuple(map(recipe, ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline")))
