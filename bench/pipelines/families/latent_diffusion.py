"""Pipelines of latent diffusion, as published before Stable Diffusion."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)

from bench.pipelines.image_parts import codebook
from bench.pipelines.parts import WIDTH, assembled, denoiser, model, picture, square, tokenizer, vae
from bench.pipelines.recipe import PipelineRecipe

TOKENS = 77  # the length of every prompt, which the pipeline fixes


def from_prompt() -> Any:
    config = LDMBertConfig(
        vocab_size=64,
        max_position_embeddings=TOKENS,
        encoder_layers=2,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        head_dim=8,
        d_model=WIDTH,
    )
    return assembled(
        "LDMTextToImagePipeline",
        vqvae=vae(),
        bert=model(lambda: LDMBertModel(config)),
        tokenizer=tokenizer(),
        unet=denoiser("UNet2DConditionModel", cross_attention_dim=WIDTH, sample_size=16),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )


def unconditional() -> Any:
    return assembled(
        "LDMPipeline",
        vqvae=codebook(3, 64),
        unet=denoiser("UNet2DModel", sample_size=16),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )


def upscaler() -> Any:
    return assembled(
        "LDMSuperResolutionPipeline",
        vqvae=codebook(3, 64),
        unet=denoiser("UNet2DModel", in_channels=6, sample_size=16),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )


def text_to_image() -> Mapping[str, Any]:
    return {**square(128), "prompt": "a cat", "guidance_scale": 3.0, "output_type": "pt"}


def upscaled() -> Mapping[str, Any]:
    return {"image": picture(), "output_type": "pt"}


RECIPES = (
    PipelineRecipe("LDMTextToImagePipeline", from_prompt, text_to_image),
    PipelineRecipe("LDMPipeline", unconditional, lambda: {"output_type": "np"}),
    PipelineRecipe("LDMSuperResolutionPipeline", upscaler, upscaled),
)
