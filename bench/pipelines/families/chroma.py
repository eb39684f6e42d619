"""Pipelines of Chroma."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    masks,
    pictures,
    prompt,
    square,
    steps_of,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def chroma(kind: str) -> Any:
    transformer = denoiser("ChromaTransformer2DModel")
    transformer.register_to_config(guidance_embeds=False)  # the inpainting pipeline reads it
    return flow_matching(kind, transformer, vae=vae(shift_factor=0.0))


def inputs(kind: str) -> Mapping[str, Any]:
    return {**pictures(kind, SIDE), **prompt(7, 24), **masks(dtype=torch.float32), **square(SIDE)}


def recipe(kind: str) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: chroma(kind),
        lambda: inputs(kind),
        steps=steps_of(kind),
        trajectories={"transformer": 2},
    )


RECIPES = tuple(map(recipe, ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline")))
