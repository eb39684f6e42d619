"""Pipelines of Wan."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, prompt, square
from bench.pipelines.recipe import PipelineRecipe


def wan() -> Any:
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    transformer = denoiser("WanTransformer3DModel")
    return assembled("WanPipeline", transformer=transformer, scheduler=scheduler)


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 16), **square(32), "num_frames": 5, "guidance_scale": 3.0}


RECIPES = (PipelineRecipe("WanPipeline", wan, text_to_video, trajectories={"transformer": 2}),)
