"""Pipelines of PRX."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import assembled, denoiser, masks, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe


def prx() -> Any:
    transformer = denoiser("PRXTransformer2DModel")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled("PRXPipeline", transformer=transformer, scheduler=scheduler, vae=vae())


def pixel() -> Any:
    """Build a pipeline whose transformer denoises pixels."""
    transformer = denoiser("PRXTransformer2DModel", in_channels=3)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled("PRXPixelPipeline", transformer=transformer, scheduler=scheduler)


def text_to_image() -> Mapping[str, Any]:
    words = {**prompt(7, 24), **masks(dtype=torch.bool), **square(16)}
    return {**words, "use_resolution_binning": False}


RECIPES = (
    PipelineRecipe("PRXPipeline", prx, text_to_image),
    PipelineRecipe("PRXPixelPipeline", pixel, text_to_image),
)
