"""Pipelines of unCLIP: a prior, a decoder and an upscaler of pixels."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

from bench.pipelines.image_parts import (
    SIMPLE_ATTENTION,
    clip_processor,
    clip_vision,
    image_prior,
    prior_scheduler,
)
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_text_with_projection,
    denoiser,
    model,
    picture,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe


def upscaler() -> Any:
    """Build a U-Net that sees the noisy picture and the small one."""
    return denoiser(
        "UNet2DModel",
        sample_size=32,
        in_channels=6,
        out_channels=3,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        layers_per_block=1,
    )


def shared() -> dict[str, Any]:
    """Build the parts that both pipelines have."""
    decoder = denoiser(
        "UNet2DConditionModel",
        **SIMPLE_ATTENTION,
        sample_size=16,
        in_channels=3,
        out_channels=6,
        class_embed_type="identity",
    )
    time_embedding = 4 * SIMPLE_ATTENTION["block_out_channels"][0]
    projection = model(
        UnCLIPTextProjModel,
        clip_embeddings_dim=WIDTH,
        time_embed_dim=time_embedding,
        cross_attention_dim=SIMPLE_ATTENTION["cross_attention_dim"],
    )
    return {
        "decoder": decoder,
        "text_encoder": clip_text_with_projection(),
        "tokenizer": tokenizer(),
        "text_proj": projection,
        "super_res_first": upscaler(),
        "super_res_last": upscaler(),
        "decoder_scheduler": diffusers.UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": diffusers.UnCLIPScheduler(),
    }


def from_prompt() -> Any:
    prior = {"prior": image_prior(), "prior_scheduler": prior_scheduler()}
    return assembled("UnCLIPPipeline", **prior, **shared())


def from_image() -> Any:
    encoder = {"image_encoder": clip_vision(), "feature_extractor": clip_processor()}
    return assembled("UnCLIPImageVariationPipeline", **encoder, **shared())


def decoded() -> dict[str, Any]:
    steps = {"decoder_num_inference_steps": 7, "super_res_num_inference_steps": 8}
    return {**steps, "output_type": "np"}


def text_to_image() -> Mapping[str, Any]:
    return {**decoded(), "prompt": "a cat", "prior_num_inference_steps": 7}


def variation() -> Mapping[str, Any]:
    return {**decoded(), "image": picture()}


RECIPES = (
    PipelineRecipe("UnCLIPPipeline", from_prompt, text_to_image),
    PipelineRecipe("UnCLIPImageVariationPipeline", from_image, variation),
)
