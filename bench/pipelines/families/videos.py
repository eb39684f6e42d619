"""Video pipelines that are the only ones of their families."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import assembled, denoiser, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, prompt_masks


def pipeline(kind: str, transformer: str, scheduler: Any) -> Any:
    """Build a pipeline without an autoencoder: these only decode."""
    return assembled(kind, transformer=denoiser(transformer), scheduler=scheduler)


def ddim() -> Any:
    return diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)


def mochi() -> Mapping[str, Any]:
    words = {**prompt(5, 16), **prompt_masks(5, torch.bool)}
    return {**words, **square(32), "num_frames": 7}


def allegro() -> Mapping[str, Any]:
    return {
        **prompt(7, 16),
        **prompt_masks(),
        **square(32),
        "num_frames": 8,
        "negative_prompt": None,
    }


def latte() -> Mapping[str, Any]:
    return {**prompt(7, 16), **square(32), "video_length": 2, "negative_prompt": None}


RECIPES = (
    PipelineRecipe(
        "MochiPipeline",
        lambda: pipeline("MochiPipeline", "MochiTransformer3DModel", flow_euler()),
        mochi,
    ),
    PipelineRecipe(
        "AllegroPipeline",
        lambda: pipeline("AllegroPipeline", "AllegroTransformer3DModel", ddim()),
        allegro,
    ),
    PipelineRecipe(
        "LattePipeline",
        lambda: pipeline("LattePipeline", "LatteTransformer3DModel", ddim()),
        latte,
    ),
)
