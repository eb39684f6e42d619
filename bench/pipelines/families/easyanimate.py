"""Pipelines of EasyAnimate."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.parts import assembled, denoiser, model, noise, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, prompt_masks


def easyanimate(kind: str, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    vae = model(
        diffusers.AutoencoderKLMagvit,
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    transformer = denoiser("EasyAnimateTransformer3DModel", **config)
    return assembled(kind, transformer=transformer, vae=vae, scheduler=flow_euler())


def text_to_video() -> Mapping[str, Any]:
    return {**prompt(7, 16), **prompt_masks(), **square(32), "num_frames": 5}


def inpainted() -> Mapping[str, Any]:
    """A video whose right half is made anew."""
    half = torch.zeros(1, 1, 5, 32, 32)
    half[..., 16:] = 1.0
    return {
        **text_to_video(),
        "video": noise(1, 3, 5, 32, 32, seed=2).sigmoid(),
        "mask_video": half,
    }


RECIPES = (
    PipelineRecipe(
        "EasyAnimatePipeline", lambda: easyanimate("EasyAnimatePipeline"), text_to_video
    ),
    PipelineRecipe(
        "EasyAnimateInpaintPipeline",
        lambda: easyanimate(
            "EasyAnimateInpaintPipeline", in_channels=12, resize_inpaint_mask_directly=False
        ),
        inpainted,
    ),
)
