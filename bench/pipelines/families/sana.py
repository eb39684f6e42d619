"""Pipelines of SANA."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.denoisers import RECIPES as DENOISERS
from bench.pipelines.autoencoders import deep_vae
from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    masks,
    model,
    pictures,
    prompt,
    square,
    steps_of,
    taken,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 32


def sana(kind: str, parts: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts beside the transformer and the autoencoder."""
    transformer = denoiser("SanaTransformer2DModel", **config)
    return flow_matching(kind, transformer, vae=deep_vae(), **parts)


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
        "intermediate_timesteps": None,  # a second timestep, for two steps only
    }
    return {
        **taken(kind, usual),
        **pictures(kind, SIDE),
        **square(SIDE),
        "use_resolution_binning": False,
    }


def recipe(kind: str, parts: Any = dict, **config: Any) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: sana(kind, parts(), **config),
        lambda: inputs(kind),
        steps=steps_of(kind),
    )


RECIPES = (
    recipe("SanaPipeline"),
    recipe("SanaControlNetPipeline", controlnet),
    recipe("SanaPAGPipeline", lambda: {"pag_applied_layers": "transformer_blocks.0"}),
    recipe("SanaSprintPipeline", sprint, guidance_embeds=True),
    recipe("SanaSprintImg2ImgPipeline", sprint, guidance_embeds=True),
)
