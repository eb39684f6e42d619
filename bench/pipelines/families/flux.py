"""Pipelines of FLUX."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.denoisers.flux import FLUX_TINY
from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    model,
    pictures,
    positive,
    prompt,
    square,
    steps_of,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16
# Channels for a control image beside the latent, or for a masked image and its mask.
CONTROLLED: Mapping[str, Any] = {"in_channels": 32, "out_channels": 16}
FILLED: Mapping[str, Any] = {"in_channels": 48, "out_channels": 16}


def flux(kind: str, parts: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts beside the transformer and the autoencoder."""
    return flow_matching(
        kind,
        denoiser("FluxTransformer2DModel", guidance_embeds=True, **config),
        vae=vae(shift_factor=0.0),
        **parts,
    )


def controlnet() -> dict[str, Any]:
    config = {**FLUX_TINY, "pooled_projection_dim": 12, "guidance_embeds": True}
    return {"controlnet": model(diffusers.FluxControlNetModel, **config)}


def inputs(kind: str, guided: bool, **options: Any) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes, and ``options``.

    Args:
        kind: The name of the class.
        guided: Whether it is called with a negative prompt too.
        options: Other arguments.
    """
    words = prompt(7, 24, pooled=12)
    guidance = {**words, "true_cfg_scale": 3.0} if guided else positive(words)
    return {**pictures(kind, SIDE), **guidance, **square(SIDE), **options}


def recipe(
    kind: str,
    parts: Any = dict,
    config: Mapping[str, Any] | None = None,
    guided: bool = False,
    **options: Any,
) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: flux(kind, parts(), **(config or {})),
        lambda: inputs(kind, guided, **options),
        steps=steps_of(kind),
        trajectories={"transformer": 2} if guided else {},
    )


# The pipeline scales its picture to this area, or to one of the sizes of its training.
SMALL: Mapping[str, Any] = {"max_area": SIDE * SIDE, "_auto_resize": False}

RECIPES = (
    recipe("FluxPipeline"),
    recipe("FluxImg2ImgPipeline", guided=True),
    recipe("FluxInpaintPipeline", guided=True),
    recipe("FluxControlPipeline", config=CONTROLLED),
    recipe("FluxControlImg2ImgPipeline", config=CONTROLLED),
    recipe("FluxControlInpaintPipeline", config=CONTROLLED),
    recipe("FluxControlNetPipeline", controlnet, guided=True),
    recipe("FluxControlNetImg2ImgPipeline", controlnet),
    recipe("FluxControlNetInpaintPipeline", controlnet),
    recipe("FluxFillPipeline", config=FILLED),
    recipe("FluxKontextPipeline", guided=True, **SMALL),
    recipe("FluxKontextInpaintPipeline", guided=True, **SMALL),
)
