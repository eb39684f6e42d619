"""Pipelines of SANA-Video."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, prompt_masks, wan_vae


def sana_video(kind: str, scheduler: Any) -> Any:
    transformer = denoiser("SanaVideoTransformer3DModel")
    return assembled(kind, transformer=transformer, vae=wan_vae(), scheduler=scheduler)


def solver() -> Any:
    return diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def text_to_video() -> Mapping[str, Any]:
    return {
        **prompt(7, 16),
        **prompt_masks(),
        **square(32),
        "frames": 5,
        "negative_prompt": None,
        "use_resolution_binning": False,
    }


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


RECIPES = (
    PipelineRecipe(
        "SanaVideoPipeline", lambda: sana_video("SanaVideoPipeline", solver()), text_to_video
    ),
    PipelineRecipe(
        "SanaImageToVideoPipeline",
        lambda: sana_video("SanaImageToVideoPipeline", flow_euler()),
        image_to_video,
    ),
)
