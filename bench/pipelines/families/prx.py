"""Pipelines of PRX."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import denoiser, flow_matching, masks, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe


def prx() -> Any:
    return flow_matching("PRXPipeline", denoiser("PRXTransformer2DModel"), vae=vae())


def pixel() -> Any:
    """Build a pipeline whose transformer denoises pixels."""
    return flow_matching("PRXPixelPipeline", denoiser("PRXTransformer2DModel", in_channels=3))


def text_to_image() -> Mapping[str, Any]:
    words = {**prompt(7, 24), **masks(dtype=torch.bool), **square(16)}
    return {**words, "use_resolution_binning": False}


RECIPES = (
    PipelineRecipe("PRXPipeline", prx, text_to_image),
    PipelineRecipe("PRXPixelPipeline", pixel, text_to_image),
)
