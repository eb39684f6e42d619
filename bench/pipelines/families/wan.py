"""Pipelines of Wan."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import assembled, denoiser, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import (
    GUIDED,
    IMAGE_WIDTH,
    clip_parts,
    flow_unipc,
    frames,
    masks,
    wan_vae,
)

# The denoiser takes the latent, a mask and a picture, and CLIP's tokens of the picture.
WITH_IMAGE = {"in_channels": 12, "image_dim": IMAGE_WIDTH, "added_kv_proj_dim": 24}


def wan(kind: str, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    transformer = denoiser("WanTransformer3DModel", **config)
    return assembled(kind, transformer=transformer, scheduler=flow_unipc(), vae=wan_vae())


def wan_with_image(kind: str, model: str = "WanTransformer3DModel") -> Any:
    transformer = denoiser(model, **WITH_IMAGE)
    return assembled(
        kind, transformer=transformer, scheduler=flow_unipc(), vae=wan_vae(), **clip_parts()
    )


def experts() -> Any:
    """Build a pipeline with a denoiser for much noise and one for little."""
    config = {"vace_in_channels": 8 + 64}  # what to keep and what to change; the mask
    return assembled(
        "WanVACEPipeline",
        transformer=denoiser("WanVACETransformer3DModel", **config),
        transformer_2=denoiser("WanVACETransformer3DModel", **config),
        boundary_ratio=0.75,
        scheduler=flow_unipc(),
        vae=wan_vae(),
    )


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 16), **square(32), "num_frames": 5, "guidance_scale": 3.0}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def video_to_video() -> Mapping[str, Any]:
    """Nine steps of which the strength leaves seven."""
    words = {key: value for key, value in text_to_video().items() if key != "num_frames"}
    return {**words, "video": frames(5), "strength": 0.8}


def controlled() -> Mapping[str, Any]:
    """A video of which two quarters are made anew, and a picture of what shall be in it."""
    return {
        **text_to_video(),
        "video": frames(5),
        "mask": masks(5),
        "reference_images": [picture(seed=7)],
    }


def animated() -> Mapping[str, Any]:
    """Nine frames in two segments."""
    return {
        **{key: value for key, value in image_to_video().items() if key != "num_frames"},
        "pose_video": frames(9),
        "face_video": frames(9, side=16),
        "segment_frame_length": 5,
    }


def edited() -> Mapping[str, Any]:
    """Seven steps on all frames, then seven on the first and the last one."""
    return {
        **image_to_video(),
        "num_frames": 9,
        "enable_temporal_reasoning": True,
        "num_temporal_reasoning_steps": 7,
    }


def edited_video() -> Mapping[str, Any]:
    return {**text_to_video(), "video": frames(5)}


RECIPES = (
    PipelineRecipe("WanPipeline", lambda: wan("WanPipeline"), text_to_video, trajectories=GUIDED),
    PipelineRecipe(
        "WanImageToVideoPipeline",
        lambda: wan_with_image("WanImageToVideoPipeline"),
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "WanVideoToVideoPipeline",
        lambda: wan("WanVideoToVideoPipeline"),
        video_to_video,
        steps=9,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "WanVACEPipeline",
        experts,
        controlled,
        steps=14,
        trajectories={"transformer": 2, "transformer_2": 2},
    ),
    PipelineRecipe(
        "WanAnimatePipeline",
        lambda: wan_with_image("WanAnimatePipeline", "WanAnimateTransformer3DModel"),
        animated,
        trajectories={"transformer": 4},
    ),
    PipelineRecipe(
        "LucyEditPipeline",
        lambda: wan("LucyEditPipeline", in_channels=8),
        edited_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "ChronoEditPipeline",
        lambda: wan_with_image("ChronoEditPipeline", "ChronoEditTransformer3DModel"),
        edited,
        steps=14,
        trajectories={"transformer": 4},
    ),
)
