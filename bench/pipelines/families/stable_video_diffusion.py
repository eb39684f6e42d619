"""Stable Video Diffusion."""

from typing import Any

import diffusers

from bench.pipelines.image_encoders import clip_image_processor, clip_vision_with_projection
from bench.pipelines.parts import WIDTH, assembled, denoiser, model, picture, square
from bench.pipelines.recipe import PipelineRecipe

CLIP_SIDE = 224  # the pipeline resizes the picture to it


def vae() -> Any:
    width = 32  # its norms have 32 groups
    return model(
        diffusers.AutoencoderKLTemporalDecoder,
        block_out_channels=(width, width),
        down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=1,
    )


def unet() -> Any:
    return denoiser(
        "UNetSpatioTemporalConditionModel",
        block_out_channels=(32, 32),
        layers_per_block=1,
        num_attention_heads=2,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
    )


def build() -> Any:
    return assembled(
        "StableVideoDiffusionPipeline",
        unet=unet(),
        vae=vae(),
        image_encoder=clip_vision_with_projection(image_size=CLIP_SIDE, patch_size=CLIP_SIDE // 2),
        feature_extractor=clip_image_processor(),
        scheduler=diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction",
            timestep_type="continuous",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ),
    )


RECIPES = (
    PipelineRecipe(
        "StableVideoDiffusionPipeline",
        build,
        lambda: {**square(32), "image": picture(), "num_frames": 3},
    ),
)
