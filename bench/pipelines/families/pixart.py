"""Pipelines of PixArt."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, masks, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe


def pixart(kind: str, sample_size: int, options: Mapping[str, Any]) -> Any:
    """Build a pipeline; the model of 1024 pixels is told the size of the picture too."""
    return assembled(
        kind,
        transformer=denoiser(
            "PixArtTransformer2DModel",
            sample_size=sample_size,
            use_additional_conditions=sample_size == 128,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
        vae=vae(),
        **options,
    )


def text_to_image() -> Mapping[str, Any]:
    # By default the negative prompt is a text, and pictures get the nearest trained size.
    given = {"negative_prompt": None, "use_resolution_binning": False}
    return {**prompt(7, 20), **masks(), **square(16), **given}


def recipe(kind: str, sample_size: int = 8, **options: Any) -> PipelineRecipe:
    return PipelineRecipe(kind, lambda: pixart(kind, sample_size, options), text_to_image)


RECIPES = (
    recipe("PixArtAlphaPipeline", 128),
    recipe("PixArtSigmaPipeline"),
    recipe("PixArtSigmaPAGPipeline", pag_applied_layers="blocks.1"),
)
