"""The pipeline of Krea 2."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import denoiser, flow_matching, noise, square
from bench.pipelines.recipe import PipelineRecipe

KIND = "Krea2Pipeline"


def krea() -> Any:
    return flow_matching(KIND, denoiser("Krea2Transformer2DModel"))


def text_to_image() -> Mapping[str, Any]:
    """Return the states of three layers of the text encoder."""
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]]).bool()
    return {
        "prompt_embeds": noise(1, 7, 3, 24),
        "prompt_embeds_mask": mask,
        "negative_prompt_embeds": noise(1, 7, 3, 24, seed=1),
        "negative_prompt_embeds_mask": mask,
        **square(64),
    }


RECIPES = (PipelineRecipe(KIND, krea, text_to_image, trajectories={"transformer": 2}),)
