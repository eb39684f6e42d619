"""Pipelines of LTX-Video."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import (
    assembled,
    denoiser,
    model,
    picture,
    prompt,
    square,
    t5_text,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, frames, prompt_masks

LEVELS = (8, 8, 8, 8)
LAYERS = (1, 1, 1, 1, 1)


def ltx(kind: str, **parts: Any) -> Any:
    """Build a pipeline whose autoencoder makes a latent frame of 8 frames, 32 pixels a side."""
    vae = model(
        diffusers.AutoencoderKLLTXVideo,
        latent_channels=8,
        block_out_channels=LEVELS,
        decoder_block_out_channels=LEVELS,
        layers_per_block=LAYERS,
        decoder_layers_per_block=LAYERS,
    )
    transformer = denoiser("LTXVideoTransformer3DModel", caption_channels=32)
    return assembled(
        kind, **({"transformer": transformer, "vae": vae, "scheduler": flow_euler()} | parts)
    )


def ltx_with_text() -> Any:
    return ltx(
        "LTXI2VLongMultiPromptPipeline",
        text_encoder=t5_text(),
        tokenizer=tokenizer(),
        scheduler=diffusers.LTXEulerAncestralRFScheduler(),
    )


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 32), **prompt_masks(dtype=torch.bool), **square(64), "num_frames": 9}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def between() -> Mapping[str, Any]:
    """A picture to start from, and a video to end with."""
    conditions = diffusers.pipelines.ltx.pipeline_ltx_condition.LTXVideoCondition
    return {
        **text_to_video(),
        "num_frames": 17,
        "conditions": [
            conditions(image=picture()),
            conditions(video=frames(9), frame_index=8, strength=0.8),
        ],
    }


def two_windows() -> Mapping[str, Any]:
    """Three latent frames in windows of two, each with its own prompt."""
    return {
        **square(64),
        "prompt": "a cat|a dog",
        "negative_prompt": "bad",
        "guidance_scale": 3.0,
        "num_frames": 17,
        "cond_image": picture(),
        "temporal_tile_size": 16,
        "temporal_overlap": 8,
        "max_sequence_length": 16,
    }


RECIPES = (
    PipelineRecipe("LTXPipeline", lambda: ltx("LTXPipeline"), text_to_video),
    PipelineRecipe(
        "LTXImageToVideoPipeline", lambda: ltx("LTXImageToVideoPipeline"), image_to_video
    ),
    PipelineRecipe("LTXConditionPipeline", lambda: ltx("LTXConditionPipeline"), between),
    PipelineRecipe(
        "LTXI2VLongMultiPromptPipeline",
        ltx_with_text,
        two_windows,
        trajectories={"transformer": 2},
    ),
)
