"""The pipeline of AuraFlow."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import denoiser, flow_matching, masks, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe

KIND = "AuraFlowPipeline"


def aura_flow() -> Any:
    return flow_matching(KIND, denoiser("AuraFlowTransformer2DModel"), vae=vae())


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 24), **masks(), **square(16)}


RECIPES = (PipelineRecipe(KIND, aura_flow, text_to_image),)
