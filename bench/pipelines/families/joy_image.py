"""Pipelines of JoyImage, which edit pictures."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.autoencoders import causal_vae
from bench.pipelines.parts import denoiser, flow_matching, picture, prompt
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stand_ins import Processor, vision_language_model


def joy_image(kind: str, transformer: str, **parts: Any) -> Any:
    """Build a pipeline; it scales pictures to a million pixels, so its autoencoder halves often."""
    autoencoder = causal_vae(6, kind="AutoencoderKLWan", base_dim=2, scale_factor_spatial=64)
    return flow_matching(
        kind,
        denoiser(transformer),
        vae=autoencoder,
        **parts,
    )


def edit() -> Any:
    return joy_image("JoyImageEditPipeline", "JoyImageEditTransformer3DModel")


def edit_plus() -> Any:
    return joy_image(
        "JoyImageEditPlusPipeline",
        "JoyImageEditPlusTransformer3DModel",
        text_encoder=vision_language_model(16),
        processor=Processor(patch=256),
    )


def one_picture() -> Mapping[str, Any]:
    ones = torch.ones(1, 7, dtype=torch.long)
    given = {"prompt_embeds_mask": ones, "negative_prompt_embeds_mask": ones}
    return {**prompt(7, 16), **given, "image": picture(32)}


def two_pictures() -> Mapping[str, Any]:
    words = {"prompt": "a cat", "negative_prompt": "a dog"}
    return {**words, "images": [picture(32), picture(32, seed=1)], "height": 512, "width": 512}


RECIPES = (
    PipelineRecipe("JoyImageEditPipeline", edit, one_picture, trajectories={"transformer": 2}),
    PipelineRecipe("JoyImageEditPlusPipeline", edit_plus, two_pictures),
)
