"""The pipeline of AuraFlow."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, masks, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe

KIND = "AuraFlowPipeline"


def aura_flow() -> Any:
    transformer = denoiser("AuraFlowTransformer2DModel")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(KIND, transformer=transformer, scheduler=scheduler, vae=vae())


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 24), **masks(), **square(16)}


RECIPES = (PipelineRecipe(KIND, aura_flow, text_to_image),)
