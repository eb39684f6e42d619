"""Pipelines of CogView and of GLM-Image."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import denoiser, flow_matching, noise, picture, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16
TWICE = {"transformer": 2}


def cogview(kind: str, transformer: Any, **parts: Any) -> Any:
    autoencoder = vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return flow_matching(kind, transformer, vae=autoencoder, **parts)


def cogview_3() -> Any:
    transformer = denoiser("CogView3PlusTransformer2DModel")
    scheduler = diffusers.CogVideoXDDIMScheduler()
    return cogview("CogView3PlusPipeline", transformer, scheduler=scheduler)


def cogview_4() -> Any:
    return cogview("CogView4Pipeline", denoiser("CogView4Transformer2DModel"))


def cogview_4_control() -> Any:
    transformer = denoiser("CogView4Transformer2DModel", in_channels=8)
    return cogview("CogView4ControlPipeline", transformer)


def glm_image() -> Any:
    return cogview("GlmImagePipeline", denoiser("GlmImageTransformer2DModel"))


def words() -> Mapping[str, Any]:
    return {**prompt(7, 24), **square(SIDE)}


def control() -> Mapping[str, Any]:
    return {**words(), "control_image": picture(SIDE)}


def edit() -> Mapping[str, Any]:
    """Return a call with a picture, and the prior's tokens for it and for the new one.

    The transformer reads the picture in a call of its own before the first step.
    """
    tokens = torch.arange(16) % 20
    return {
        "prompt_embeds": noise(1, 7, 24),
        "negative_prompt_embeds": noise(1, 7, 24, seed=1),
        "image": [picture(SIDE)],
        "prior_token_ids": tokens[None],
        "prior_token_image_ids": [tokens.flip(0)],
        "source_image_grid_thw": [torch.tensor([[1, 4, 4]])],
        **square(SIDE),
    }


RECIPES = (
    PipelineRecipe("CogView3PlusPipeline", cogview_3, words),
    PipelineRecipe("CogView4Pipeline", cogview_4, words, trajectories=TWICE),
    PipelineRecipe("CogView4ControlPipeline", cogview_4_control, control, trajectories=TWICE),
    PipelineRecipe("GlmImagePipeline", glm_image, edit, trajectories=TWICE),
)
