"""Pipelines of LongCat-Image."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import denoiser, flow_matching, picture, square, tokenizer, vae
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stand_ins import Processor, vision_language_model

WORDS = {"prompt": "a cat", "negative_prompt": "a dog"}


class ImageProcessor:
    """Has the interface of the image processor of Qwen2-VL; every picture has four patches."""

    merge_size = 2

    def __call__(self, images: Any, **_: Any) -> Mapping[str, Any]:
        del images
        grid = torch.tensor([[1, 4, 4]])
        return {"pixel_values": torch.zeros(16, 3), "image_grid_thw": grid}


def longcat(kind: str, levels: int) -> Any:
    """Build a pipeline whose autoencoder has so many levels, and with short prompts."""
    pipe = flow_matching(
        kind,
        denoiser("LongCatImageTransformer2DModel", in_channels=64),
        vae=vae(levels, latent_channels=16, shift_factor=0.0, block_out_channels=(4,) * levels),
        text_encoder=vision_language_model(24),
        tokenizer=tokenizer(),
        text_processor=Processor(image_processor=ImageProcessor()),
    )
    pipe.tokenizer_max_length = 16
    return pipe


def text_to_image() -> Mapping[str, Any]:
    return {**WORDS, **square(16), "enable_prompt_rewrite": False}


def edit() -> Mapping[str, Any]:
    """Return a call with a picture, which is scaled to a million pixels."""
    return {**WORDS, "image": picture(32)}


RECIPES = tuple(
    PipelineRecipe(kind, build, call, trajectories={"transformer": 2})
    for kind, build, call in (
        ("LongCatImagePipeline", lambda: longcat("LongCatImagePipeline", 2), text_to_image),
        ("LongCatImageEditPipeline", lambda: longcat("LongCatImageEditPipeline", 7), edit),
    )
)
