"""The pipeline of Ovis-Image."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, prompt, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "OvisImagePipeline"


def ovis() -> Any:
    transformer = denoiser("OvisImageTransformer2DModel")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(KIND, transformer=transformer, scheduler=scheduler)


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 24), "negative_prompt": None, **square(64)}


RECIPES = (PipelineRecipe(KIND, ovis, text_to_image, trajectories={"transformer": 2}),)
