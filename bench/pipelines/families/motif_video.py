"""Pipelines of Motif Video."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.families.hunyuan_video import siglip
from bench.pipelines.parts import assembled, denoiser, picture, prompt, square, t5_text
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import GUIDED, IMAGE_WIDTH, flow_euler, prompt_masks, wan_vae


def motif(kind: str, config: Mapping[str, Any] | None = None, **parts: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    return assembled(
        kind,
        transformer=denoiser("MotifVideoTransformer3DModel", **(config or {})),
        vae=wan_vae(),
        scheduler=flow_euler(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
        **parts,
    )


def image_parts() -> Mapping[str, Any]:
    """Build a text encoder that has an image encoder, and what prepares pictures."""
    parts = siglip()
    encoder = t5_text()
    encoder.vision_tower = parts["image_encoder"]
    return {"text_encoder": encoder, "feature_extractor": parts["feature_extractor"]}


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 16), **prompt_masks(), **square(32), "num_frames": 5, "prompt": None}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


RECIPES = (
    PipelineRecipe(
        "MotifVideoPipeline",
        lambda: motif("MotifVideoPipeline"),
        text_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "MotifVideoImage2VideoPipeline",
        lambda: motif(
            "MotifVideoImage2VideoPipeline",
            {"image_embed_dim": IMAGE_WIDTH},
            **image_parts(),
        ),
        image_to_video,
        trajectories=GUIDED,
    ),
)
