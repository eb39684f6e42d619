"""Pipelines of Helios, which makes a video chunk by chunk."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import wan_vae


def helios(kind: str, stages: int) -> Any:
    """Build a pipeline that makes each chunk in so many sizes, each twice the one before."""
    starts = [stage / stages for stage in range(stages + 1)]
    # With the usual gamma of a third the covariance of the noise has no Cholesky factor here.
    scheduler = diffusers.HeliosScheduler(stages=stages, stage_range=starts, gamma=0.3)
    return assembled(
        kind,
        transformer=denoiser("HeliosTransformer3DModel"),
        vae=wan_vae(),
        scheduler=scheduler,
    )


def two_chunks(side: int) -> Mapping[str, Any]:
    """Two chunks of two latent frames after a picture, with guidance."""
    return {
        **prompt(7, 16),
        **square(side),
        "image": picture(),
        "num_frames": 10,
        "num_latent_frames_per_chunk": 2,
        "history_sizes": [4, 2, 1],
        "guidance_scale": 3.0,
    }


RECIPES = (
    PipelineRecipe(
        "HeliosPipeline",
        lambda: helios("HeliosPipeline", 1),
        lambda: two_chunks(32),
        trajectories={"transformer": 4},
    ),
    PipelineRecipe(
        "HeliosPyramidPipeline",
        lambda: helios("HeliosPyramidPipeline", 2),
        lambda: {**two_chunks(64), "pyramid_num_inference_steps_list": [7, 7]},
        trajectories={"transformer": 8},
    ),
)
