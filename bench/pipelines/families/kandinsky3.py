"""Pipelines of Kandinsky 3."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import torch

from bench.pipelines.image_parts import movq
from bench.pipelines.parts import assembled, denoiser, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe

WORDS = 20


def kandinsky3(kind: str) -> Any:
    unet = denoiser("Kandinsky3UNet", encoder_hid_dim=WORDS, layers_per_block=2)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    return assembled(kind, unet=unet, movq=movq(), scheduler=scheduler)


def words() -> dict[str, Any]:
    masks = {
        "attention_mask": torch.ones(1, 7, dtype=torch.long),
        "negative_attention_mask": torch.ones(1, 7, dtype=torch.long),
    }
    return {**prompt(7, WORDS), **masks}


def text_to_image() -> Mapping[str, Any]:
    return {**words(), **square(128)}


def from_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(128), "strength": 0.8}


RECIPES = (
    PipelineRecipe("Kandinsky3Pipeline", partial(kandinsky3, "Kandinsky3Pipeline"), text_to_image),
    PipelineRecipe(
        "Kandinsky3Img2ImgPipeline", partial(kandinsky3, "Kandinsky3Img2ImgPipeline"), from_image, 9
    ),
)
