"""Pipelines of FLUX."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, prompt, square
from bench.pipelines.recipe import PipelineRecipe


def flux(kind: str) -> Any:
    transformer = denoiser("FluxTransformer2DModel", guidance_embeds=True)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(kind, transformer=transformer, scheduler=scheduler)


def text_to_image() -> Mapping[str, Any]:
    words = prompt(7, 24, pooled=12)
    positive = {name: words[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}
    return {**positive, **square(64)}


RECIPES = (PipelineRecipe("FluxPipeline", lambda: flux("FluxPipeline"), text_to_image),)
