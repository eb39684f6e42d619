"""Deprecated variants of Stable Diffusion that read, guide or change its attention."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import torch
from diffusers.pipelines.stable_diffusion.clip_image_project_model import CLIPImageProjection

from bench.pipelines.image_parts import clip_processor, clip_vision
from bench.pipelines.parts import WIDTH, assembled, model, noise, picture
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import (
    SIDE,
    sized_words,
    small_unet,
    stable_parts,
    text_parts,
    words,
)


def variant(kind: str) -> Any:
    return assembled(kind, **stable_parts())


def diff_edit() -> Any:
    inverse = diffusers.DDIMInverseScheduler(clip_sample=False)
    return assembled("StableDiffusionDiffEditPipeline", **stable_parts(inverse_scheduler=inverse))


def gligen() -> Any:
    unet = small_unet(attention_type="gated")
    return assembled("StableDiffusionGLIGENPipeline", **stable_parts(**text_parts(), unet=unet))


def gligen_with_pictures() -> Any:
    """Build GLIGEN whose things have both a phrase and a picture."""
    parts = stable_parts(
        **text_parts(),
        unet=small_unet(attention_type="gated-text-image"),
        processor=clip_processor(),
        image_encoder=clip_vision(),
        image_project=model(CLIPImageProjection, hidden_size=WIDTH),
    )
    return assembled("StableDiffusionGLIGENTextImagePipeline", **parts)


def attend_and_excite() -> Mapping[str, Any]:
    """Strengthen two words of the prompt: a call for its gradient, then one for the step."""
    attention = {"token_indices": [2, 4], "attn_res": (SIDE // 4, SIDE // 4)}
    return {**sized_words(), **attention, "prompt": None}


def self_attention() -> Mapping[str, Any]:
    return {**sized_words(), "sag_scale": 0.75}


def directed() -> Mapping[str, Any]:
    """Edit from one direction of words to another."""
    return {
        **sized_words(),
        "source_embeds": noise(2, 7, WIDTH, seed=2),
        "target_embeds": noise(2, 7, WIDTH, seed=3),
    }


def differing() -> Mapping[str, Any]:
    """Edit where a mask is 1. The other latents come from the inversion of a picture."""
    region = torch.zeros(1, 1, SIDE // 2, SIDE // 2)
    region[..., : SIDE // 4] = 1
    latents = noise(1, 7, 4, SIDE // 2, SIDE // 2, seed=2)
    return {**words(), "mask_image": region, "image_latents": latents, "inpaint_strength": 0.8}


def grounded() -> Mapping[str, Any]:
    """Place two things into boxes, during the first half of the steps."""
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]
    return {
        **sized_words(),
        "gligen_phrases": ["a cat", "a dog"],
        "gligen_boxes": boxes,
        "gligen_scheduled_sampling_beta": 0.5,
    }


def pictured() -> Mapping[str, Any]:
    return {**grounded(), "gligen_images": [picture(seed=1), picture(seed=2)]}


RECIPES = (
    PipelineRecipe(
        "StableDiffusionAttendAndExcitePipeline",
        partial(variant, "StableDiffusionAttendAndExcitePipeline"),
        attend_and_excite,
        trajectories={"unet": 2},
    ),
    PipelineRecipe(
        "StableDiffusionSAGPipeline",
        partial(variant, "StableDiffusionSAGPipeline"),
        self_attention,
        trajectories={"unet": 2},
    ),
    PipelineRecipe("StableDiffusionDiffEditPipeline", diff_edit, differing, 9),
    PipelineRecipe(
        "StableDiffusionPix2PixZeroPipeline",
        partial(variant, "StableDiffusionPix2PixZeroPipeline"),
        directed,
        trajectories={"unet": 3},
    ),
    PipelineRecipe("StableDiffusionGLIGENPipeline", gligen, grounded),
    PipelineRecipe("StableDiffusionGLIGENTextImagePipeline", gligen_with_pictures, pictured),
)
