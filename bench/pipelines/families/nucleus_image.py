"""The pipeline of Nucleus-Image."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import assembled, denoiser, prompt, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "NucleusMoEImagePipeline"


def nucleus() -> Any:
    transformer = denoiser("NucleusMoEImageTransformer2DModel")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(KIND, transformer=transformer, scheduler=scheduler)


def text_to_image() -> Mapping[str, Any]:
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    given = {"prompt_embeds_mask": mask, "negative_prompt_embeds_mask": mask}
    return {**prompt(7, 24), **given, **square(64)}


RECIPES = (PipelineRecipe(KIND, nucleus, text_to_image, trajectories={"transformer": 2}),)
