"""Pipelines of videos with U-Nets."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from bench.pipelines.image_parts import clip_processor, clip_vision
from bench.pipelines.parts import WIDTH, assembled, denoiser, picture, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import (
    SIDE,
    ddim,
    sized_words,
    small_unet,
    stable_parts,
    text_parts,
    words,
    xl_config,
)

FRAMES = 3
POOLED = 16


def video_unet(kind: str, suffix: str, **config: Any) -> Any:
    """Build a U-Net with two levels, whose blocks have names that end with ``suffix``."""
    return denoiser(
        kind,
        block_out_channels=(8, 16),
        down_block_types=(f"CrossAttnDownBlock{suffix}", f"DownBlock{suffix}"),
        up_block_types=(f"UpBlock{suffix}", f"CrossAttnUpBlock{suffix}"),
        cross_attention_dim=WIDTH,
        **config,
    )


def synthesis(kind: str) -> Any:
    unet = video_unet("UNet3DConditionModel", "3D")
    return assembled(kind, unet=unet, vae=vae(), scheduler=ddim())


def i2vgen_xl() -> Any:
    return assembled(
        "I2VGenXLPipeline",
        unet=video_unet("I2VGenXLUNet", "3D"),
        vae=vae(),
        scheduler=ddim(),
        image_encoder=clip_vision(),
        feature_extractor=clip_processor(),
    )


def pia() -> Any:
    unet = video_unet("UNetMotionModel", "Motion", in_channels=9)
    return assembled("PIAPipeline", unet=unet, vae=vae(), scheduler=ddim())


def zero() -> Any:
    return assembled("TextToVideoZeroPipeline", **stable_parts(**text_parts()))


def zero_xl() -> Any:
    unet = small_unet(**xl_config(POOLED))
    return assembled("TextToVideoZeroSDXLPipeline", unet=unet, vae=vae(), scheduler=ddim())


def text_to_video() -> Mapping[str, Any]:
    return {**sized_words(), "num_frames": FRAMES}


def video_to_video() -> Mapping[str, Any]:
    frames = [picture(seed=number) for number in range(FRAMES)]
    return {**words(), "video": frames, "strength": 0.8}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def two_stages() -> dict[str, Any]:
    """Denoise the first frame for 7 steps, and from the fifth step on all frames together."""
    return {**square(SIDE), "video_length": FRAMES, "t0": 6, "t1": 9}


def zero_shot() -> Mapping[str, Any]:
    return {**two_stages(), "prompt": "a cat"}


def zero_shot_xl() -> Mapping[str, Any]:
    return {**two_stages(), **prompt(7, WIDTH, POOLED), "prompt": None}


RECIPES = (
    PipelineRecipe(
        "TextToVideoSDPipeline", partial(synthesis, "TextToVideoSDPipeline"), text_to_video
    ),
    PipelineRecipe(
        "VideoToVideoSDPipeline", partial(synthesis, "VideoToVideoSDPipeline"), video_to_video, 9
    ),
    PipelineRecipe("I2VGenXLPipeline", i2vgen_xl, image_to_video),
    PipelineRecipe("PIAPipeline", pia, image_to_video),
    PipelineRecipe("TextToVideoZeroPipeline", zero, zero_shot, 14, {"unet": 2}),
    PipelineRecipe("TextToVideoZeroSDXLPipeline", zero_xl, zero_shot_xl, 14, {"unet": 2}),
)
