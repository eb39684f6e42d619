"""Pipelines of DeepFloyd IF."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers

from bench.pipelines.image_parts import SIMPLE_ATTENTION
from bench.pipelines.parts import assembled, denoiser, mask, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe

WORDS = 20
UPSCALING = "SuperResolution"


def deepfloyd_if(kind: str) -> Any:
    """Build a pipeline of pixels. One that upscales sees the small picture and its noise level."""
    upscaling: dict[str, Any] = {}
    if UPSCALING in kind:
        upscaling = {
            "parts": {"image_noising_scheduler": diffusers.DDPMScheduler()},
            "unet": {"in_channels": 6, "class_embed_type": "timestep"},
        }
    unet = denoiser(
        "UNet2DConditionModel",
        **{**SIMPLE_ATTENTION, "in_channels": 3, **upscaling.get("unet", {})},
        out_channels=6,
        sample_size=32,
        encoder_hid_dim=WORDS,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        act_fn="gelu",
    )
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", thresholding=True, variance_type="learned_range"
    )
    parts = upscaling.get("parts", {})
    return assembled(kind, unet=unet, scheduler=scheduler, requires_safety_checker=False, **parts)


def words() -> dict[str, Any]:
    return {**prompt(7, WORDS), "output_type": "pt"}


def text_to_image() -> Mapping[str, Any]:
    return words()


def upscaled() -> Mapping[str, Any]:
    return {**words(), **square(32), "image": picture(16)}


def from_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(), "strength": 0.8}


def inpainting() -> Mapping[str, Any]:
    return {**from_image(), "mask_image": mask()}


def upscaled_from_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(16), "original_image": picture(), "strength": 0.8}


def upscaled_inpainting() -> Mapping[str, Any]:
    return {**upscaled_from_image(), "mask_image": mask()}


RECIPES = tuple(
    PipelineRecipe(kind, partial(deepfloyd_if, kind), call, steps)
    for kind, call, steps in (
        ("IFPipeline", text_to_image, 7),
        ("IFSuperResolutionPipeline", upscaled, 7),
        ("IFImg2ImgPipeline", from_image, 9),
        ("IFInpaintingPipeline", inpainting, 9),
        ("IFImg2ImgSuperResolutionPipeline", upscaled_from_image, 9),
        ("IFInpaintingSuperResolutionPipeline", upscaled_inpainting, 9),
    )
)
