"""The pipeline of Nucleus-Image."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import denoiser, flow_matching, prompt, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "NucleusMoEImagePipeline"


def nucleus() -> Any:
    return flow_matching(KIND, denoiser("NucleusMoEImageTransformer2DModel"))


def text_to_image() -> Mapping[str, Any]:
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    given = {"prompt_embeds_mask": mask, "negative_prompt_embeds_mask": mask}
    return {**prompt(7, 24), **given, **square(64)}


RECIPES = (PipelineRecipe(KIND, nucleus, text_to_image, trajectories={"transformer": 2}),)
