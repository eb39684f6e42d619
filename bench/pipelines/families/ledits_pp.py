"""Pipelines of LEDITS++, which edit a picture that they inverted before."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import (
    clip_text,
    clip_text_with_projection,
    picture,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import sd, unet, xl, xl_unet

STEPS = 7

# The masks come from cross-attention at a quarter of the latent's size.
DEEP: Mapping[str, Any] = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}


def inverted(pipe: Any) -> Any:
    """Invert a picture, which a call of the pipeline needs."""
    pipe.set_progress_bar_config(disable=True)
    pipe.invert(
        picture(),
        source_prompt="a dog",
        num_inversion_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
    )
    return pipe


def build() -> Any:
    pipe = sd(
        "LEditsPPPipelineStableDiffusion",
        unet=unet(**DEEP),
        text_encoder=clip_text(),
        tokenizer=tokenizer(),
        scheduler=solver(),
    )
    return inverted(pipe)


def build_xl() -> Any:
    pipe = xl(
        "LEditsPPPipelineStableDiffusionXL",
        unet=xl_unet(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text_with_projection(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=solver(),
    )
    return inverted(pipe)


def solver() -> Any:
    return diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)


def edit() -> Mapping[str, Any]:
    return {
        "editing_prompt": ["a cat", "a hat"],
        "reverse_editing_direction": [False, True],
        "edit_guidance_scale": [5.0, 4.0],
        "edit_threshold": [0.7, 0.8],
    }


RECIPES = (
    PipelineRecipe("LEditsPPPipelineStableDiffusion", build, edit),
    PipelineRecipe("LEditsPPPipelineStableDiffusionXL", build_xl, edit),
)
