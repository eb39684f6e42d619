"""Pipelines of SANA."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.denoisers import RECIPES as DENOISERS
from bench.pipelines.autoencoders import deep_vae
from bench.pipelines.parts import (
    assembled,
    denoiser,
    masks,
    model,
    picture,
    prompt,
    square,
    taken,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 32


def sana(kind: str, parts: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts beside the transformer and the autoencoder."""
    defaults = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(), "vae": deep_vae()}
    transformer = denoiser("SanaTransformer2DModel", **config)
    return assembled(kind, transformer=transformer, **{**defaults, **parts})


def controlnet() -> dict[str, Any]:
    config = DENOISERS["SanaTransformer2DModel"].tiny
    return {"controlnet": model(diffusers.SanaControlNetModel, **config)}


def sprint() -> dict[str, Any]:
    return {"scheduler": diffusers.SCMScheduler()}


def inputs(kind: str) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes."""
    usual = {
        **prompt(7, 24),
        **masks(),
        "negative_prompt": None,
        "image": picture(SIDE),
        "control_image": picture(SIDE, seed=1),
        "strength": 0.7,
        "pag_scale": 3.0,
        "intermediate_timesteps": None,  # a second timestep, for two steps only
    }
    return {**taken(kind, usual), **square(SIDE), "use_resolution_binning": False}


def recipe(kind: str, parts: Any = dict, **config: Any) -> PipelineRecipe:
    """Build a recipe; with a strength of 0.7 seven of ten steps are called."""
    shortened = bool(taken(kind, {"strength": 1.0}))
    return PipelineRecipe(
        kind,
        lambda: sana(kind, parts(), **config),
        lambda: inputs(kind),
        steps=10 if shortened else 7,
    )


RECIPES = (
    recipe("SanaPipeline"),
    recipe("SanaControlNetPipeline", controlnet),
    recipe("SanaPAGPipeline", lambda: {"pag_applied_layers": "transformer_blocks.0"}),
    recipe("SanaSprintPipeline", sprint, guidance_embeds=True),
    recipe("SanaSprintImg2ImgPipeline", sprint, guidance_embeds=True),
)
