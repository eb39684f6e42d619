"""The pipeline of Ovis-Image."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import denoiser, flow_matching, prompt, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "OvisImagePipeline"


def ovis() -> Any:
    return flow_matching(KIND, denoiser("OvisImageTransformer2DModel"))


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 24), "negative_prompt": None, **square(64)}


RECIPES = (PipelineRecipe(KIND, ovis, text_to_image, trajectories={"transformer": 2}),)
