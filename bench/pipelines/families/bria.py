"""Pipelines of Bria."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe


def bria() -> Any:
    transformer = denoiser("BriaTransformer2DModel")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled("BriaPipeline", transformer=transformer, scheduler=scheduler, vae=vae())


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 24), **square(16)}


RECIPES = (PipelineRecipe("BriaPipeline", bria, text_to_image),)
