"""The pipeline of ERNIE-Image."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import denoiser, flow_matching, noise, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "ErnieImagePipeline"


def ernie_image() -> Any:
    return flow_matching(KIND, denoiser("ErnieImageTransformer2DModel"))


def text_to_image() -> Mapping[str, Any]:
    words = {"prompt_embeds": [noise(7, 24)], "negative_prompt_embeds": [noise(5, 24, seed=1)]}
    return {**words, **square(128)}


RECIPES = (PipelineRecipe(KIND, ernie_image, text_to_image),)
