"""Pipelines of Kandinsky 2.2."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers

from bench.pipelines.families.kandinsky21 import (
    INPAINTING,
    from_image,
    inpainting,
    picture_embeddings,
    prior,
)
from bench.pipelines.image_parts import SIMPLE_ATTENTION, movq
from bench.pipelines.parts import WIDTH, assembled, denoiser, noise, picture, square
from bench.pipelines.recipe import PipelineRecipe


def decoder(channels: int, embedding: str) -> dict[str, Any]:
    """Build the parts that turn an embedding of a picture into a picture.

    Args:
        channels: The input channels of the U-Net.
        embedding: What is added to the U-Net's timestep.
    """
    unet = denoiser(
        "UNet2DConditionModel",
        **SIMPLE_ATTENTION,
        in_channels=channels,
        out_channels=8,
        addition_embed_type=embedding,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
    )
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    return {"unet": unet, "movq": movq(), "scheduler": scheduler}


def kandinsky(kind: str) -> Any:
    if "Prior" in kind:
        return assembled(kind, **prior())
    if "Controlnet" in kind:
        return assembled(kind, **decoder(8, "image_hint"))
    parts = decoder(INPAINTING if "Inpaint" in kind else 4, "image")
    return assembled(kind, **parts, **(prior("prior_") if "Combined" in kind else {}))


def words() -> dict[str, Any]:
    return {"prompt": "a cat", "negative_prompt": "a dog"}


def embedded() -> Mapping[str, Any]:
    return {**words(), "output_type": "pt"}


def changed() -> Mapping[str, Any]:
    return {**embedded(), "image": picture(), "strength": 0.8}


def combined() -> Mapping[str, Any]:
    return {**words(), **square(64), "prior_num_inference_steps": 7}


def decoded() -> Mapping[str, Any]:
    return {**square(64), **picture_embeddings()}


def controlled() -> Mapping[str, Any]:
    return {**decoded(), "hint": noise(1, 3, 64, 64, seed=2), "output_type": "pt"}


RECIPES = tuple(
    PipelineRecipe(kind, partial(kandinsky, kind), call, steps)
    for kind, call, steps in (
        ("KandinskyV22PriorPipeline", embedded, 7),
        ("KandinskyV22PriorEmb2EmbPipeline", changed, 9),
        ("KandinskyV22Pipeline", decoded, 7),
        ("KandinskyV22Img2ImgPipeline", lambda: from_image(decoded()), 9),
        ("KandinskyV22InpaintPipeline", lambda: inpainting(decoded()), 7),
        ("KandinskyV22ControlnetPipeline", controlled, 7),
        ("KandinskyV22ControlnetImg2ImgPipeline", lambda: from_image(controlled()), 9),
        ("KandinskyV22CombinedPipeline", combined, 7),
        ("KandinskyV22Img2ImgCombinedPipeline", lambda: from_image(combined()), 9),
        ("KandinskyV22InpaintCombinedPipeline", lambda: inpainting(combined()), 7),
    )
)
