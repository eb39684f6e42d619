"""Pipelines of SkyReels V2."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.families.wan import WITH_IMAGE
from bench.pipelines.parts import assembled, denoiser, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import GUIDED, clip_parts, flow_unipc, frames, wan_vae


def skyreels(kind: str, parts: Mapping[str, Any] | None = None, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    transformer = denoiser("SkyReelsV2Transformer3DModel", **config)
    return assembled(
        kind, transformer=transformer, vae=wan_vae(), scheduler=flow_unipc(), **(parts or {})
    )


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 16), **square(32), "num_frames": 9, "guidance_scale": 3.0}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def one_after_another() -> Mapping[str, Any]:
    """Each latent frame starts two steps after the one before it."""
    return {**text_to_video(), "prompt": None, "ar_step": 2, "causal_block_size": 1}


def between() -> Mapping[str, Any]:
    """The first and the last frame are given."""
    return {**image_to_video(), "last_image": picture(seed=1), "addnoise_condition": 20}


def continued() -> Mapping[str, Any]:
    """Eight latent frames after two given ones, in two windows of four that share two."""
    return {
        **text_to_video(),
        "video": frames(9),
        "num_frames": 17,
        "base_num_frames": 13,
        "overlap_history": 5,
        "addnoise_condition": 20,
    }


RECIPES = (
    PipelineRecipe(
        "SkyReelsV2Pipeline",
        lambda: skyreels("SkyReelsV2Pipeline"),
        text_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "SkyReelsV2ImageToVideoPipeline",
        lambda: skyreels("SkyReelsV2ImageToVideoPipeline", clip_parts(), **WITH_IMAGE),
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "SkyReelsV2DiffusionForcingPipeline",
        lambda: skyreels("SkyReelsV2DiffusionForcingPipeline", inject_sample_info=True),
        one_after_another,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "SkyReelsV2DiffusionForcingImageToVideoPipeline",
        lambda: skyreels("SkyReelsV2DiffusionForcingImageToVideoPipeline"),
        between,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        lambda: skyreels("SkyReelsV2DiffusionForcingVideoToVideoPipeline"),
        continued,
        trajectories={"transformer": 4},
    ),
)
