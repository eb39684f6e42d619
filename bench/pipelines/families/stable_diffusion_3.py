"""Pipelines of Stable Diffusion 3."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.denoisers import RECIPES as DENOISERS
from bench.pipelines.parts import (
    assembled,
    denoiser,
    mask,
    model,
    picture,
    prompt,
    square,
    taken,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def sd3(kind: str, options: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts and options beside the transformer and autoencoder."""
    channels = config.get("in_channels", 4)
    return assembled(
        kind,
        transformer=denoiser("SD3Transformer2DModel", **config),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.0, latent_channels=channels),
        **options,
    )


def controlnet(extra_channels: int = 0) -> dict[str, Any]:
    config = dict(DENOISERS["SD3Transformer2DModel"].tiny)
    net = model(diffusers.SD3ControlNetModel, **config, extra_conditioning_channels=extra_channels)
    return {"controlnet": net}


def inputs(kind: str) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes."""
    usual = {
        "image": picture(SIDE),
        "mask_image": mask(SIDE),
        "control_image": picture(SIDE, seed=1),
        "control_mask": mask(SIDE),
        "strength": 0.7,
        "pag_scale": 3.0,
    }
    return {**taken(kind, usual), **prompt(7, 24, pooled=12), **square(SIDE)}


def recipe(kind: str, options: Any = dict, **config: Any) -> PipelineRecipe:
    """Build a recipe; with a strength of 0.7 seven of ten steps are called."""
    shortened = bool(taken(kind, {"strength": 1.0}))
    return PipelineRecipe(
        kind,
        lambda: sd3(kind, options(), **config),
        lambda: inputs(kind),
        steps=10 if shortened else 7,
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
