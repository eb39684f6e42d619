"""Pipelines of Versatile Diffusion, which attends to prompts and to pictures."""

from collections.abc import Mapping
from typing import Any

from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import (
    UNetFlatConditionModel,
)

from bench.pipelines.image_parts import clip_processor, clip_vision
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_text_with_projection,
    model,
    picture,
    square,
    tokenizer,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import SIDE, ddim, small_unet


def picture_parts() -> dict[str, Any]:
    return {"image_feature_extractor": clip_processor(), "image_encoder": clip_vision()}


def text_parts() -> dict[str, Any]:
    """Build the parts for prompts. The pipeline moves the U-Net's attention to the other U-Net."""
    unet = model(
        UNetFlatConditionModel,
        sample_size=SIDE // 2,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlockFlat",) * 2,
        up_block_types=("CrossAttnUpBlockFlat",) * 2,
        cross_attention_dim=WIDTH,
        norm_num_groups=4,
        attention_head_dim=2,
    )
    encoder = {"text_encoder": clip_text_with_projection(), "tokenizer": tokenizer()}
    return {"text_unet": unet, **encoder}


def versatile(kind: str, **parts: Any) -> Any:
    unet = small_unet(attention_head_dim=2)
    return assembled(kind, image_unet=unet, vae=vae(), scheduler=ddim(), **parts)


def text_to_image() -> Mapping[str, Any]:
    return {**square(SIDE), "prompt": "a cat", "negative_prompt": "a dog"}


def variation() -> Mapping[str, Any]:
    return {**square(SIDE), "image": picture()}


RECIPES = (
    PipelineRecipe(
        "VersatileDiffusionTextToImagePipeline",
        lambda: versatile("VersatileDiffusionTextToImagePipeline", **text_parts()),
        text_to_image,
    ),
    PipelineRecipe(
        "VersatileDiffusionImageVariationPipeline",
        lambda: versatile("VersatileDiffusionImageVariationPipeline", **picture_parts()),
        variation,
    ),
)
