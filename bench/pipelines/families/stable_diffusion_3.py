"""Pipelines of Stable Diffusion 3."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.denoisers import RECIPES as DENOISERS
from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    model,
    pictures,
    prompt,
    square,
    steps_of,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def sd3(kind: str, options: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts and options beside the transformer and autoencoder."""
    channels = config.get("in_channels", 4)
    return flow_matching(
        kind,
        denoiser("SD3Transformer2DModel", **config),
        vae=vae(shift_factor=0.0, latent_channels=channels),
        **options,
    )


def controlnet(extra_channels: int = 0) -> dict[str, Any]:
    config = dict(DENOISERS["SD3Transformer2DModel"].tiny)
    net = model(diffusers.SD3ControlNetModel, **config, extra_conditioning_channels=extra_channels)
    return {"controlnet": net}


def inputs(kind: str) -> Mapping[str, Any]:
    return {**pictures(kind, SIDE), **prompt(7, 24, pooled=12), **square(SIDE)}


def recipe(kind: str, options: Any = dict, **config: Any) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: sd3(kind, options(), **config),
        lambda: inputs(kind),
        steps=steps_of(kind),
    )


def pag() -> dict[str, Any]:
    return {"pag_applied_layers": "blocks.1"}


RECIPES = (
    recipe("StableDiffusion3Pipeline"),
    recipe("StableDiffusion3Img2ImgPipeline"),
    recipe("StableDiffusion3InpaintPipeline", in_channels=16, out_channels=16),
    recipe("StableDiffusion3ControlNetPipeline", controlnet),
    recipe("StableDiffusion3ControlNetInpaintingPipeline", lambda: controlnet(1)),
    recipe("StableDiffusion3PAGPipeline", pag),
    recipe("StableDiffusion3PAGImg2ImgPipeline", pag),
)
