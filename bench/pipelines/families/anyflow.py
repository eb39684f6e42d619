"""Pipelines of AnyFlow."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, noise, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import wan_vae


def anyflow(kind: str, model: str) -> Any:
    return assembled(
        kind,
        transformer=denoiser(model),
        vae=wan_vae(),
        scheduler=diffusers.FlowMapEulerDiscreteScheduler(shift=5.0),
    )


def continued() -> Mapping[str, Any]:
    """The frames after a given one."""
    return {
        **prompt(7, 16),
        **square(32),
        "video": noise(1, 1, 3, 32, 32, seed=2).sigmoid(),
        "num_frames": 9,
        "guidance_scale": 3.0,
    }


def in_chunks() -> Mapping[str, Any]:
    """Three chunks, of one, two and two latent frames, of which the first is given."""
    return {**continued(), "num_frames": 17, "chunk_partition": [1, 2, 2]}


RECIPES = (
    PipelineRecipe(
        "AnyFlowPipeline",
        lambda: anyflow("AnyFlowPipeline", "AnyFlowTransformer3DModel"),
        continued,
    ),
    PipelineRecipe(
        "AnyFlowFARPipeline",
        lambda: anyflow("AnyFlowFARPipeline", "AnyFlowFARTransformer3DModel"),
        in_chunks,
        trajectories={"transformer": 2},
    ),
)
