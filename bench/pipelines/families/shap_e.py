"""Pipelines of Shap-E."""

from collections.abc import Mapping
from typing import Any

import diffusers
from transformers import CLIPVisionModel

from bench.pipelines.image_parts import clip_processor, clip_vision_config
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_text_with_projection,
    denoiser,
    model,
    picture,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe


def shape_prior(**config: Any) -> Any:
    """Build a prior that denoises the weights of a field, a row of them a token."""
    return denoiser(
        "PriorTransformer",
        **{
            "embedding_dim": 16,
            "num_embeddings": 8,
            "embedding_proj_dim": WIDTH,
            "clip_embed_dim": 32,
            "additional_embeddings": 0,
            "time_embed_act_fn": "gelu",
            "norm_in_type": "layer",
            "encoder_hid_proj_type": None,
            "added_emb_type": None,
            **config,
        },
    )


def scheduler() -> Any:
    return diffusers.HeunDiscreteScheduler(
        num_train_timesteps=1024,
        beta_schedule="exp",
        prediction_type="sample",
        use_karras_sigmas=True,
        clip_sample=True,
    )


def from_prompt() -> Any:
    return assembled(
        "ShapEPipeline",
        prior=shape_prior(),
        text_encoder=clip_text_with_projection(),
        tokenizer=tokenizer(),
        scheduler=scheduler(),
    )


def from_image() -> Any:
    return assembled(
        "ShapEImg2ImgPipeline",
        prior=shape_prior(embedding_proj_norm_type="layer"),
        image_encoder=model(lambda: CLIPVisionModel(clip_vision_config())),
        image_processor=clip_processor(),
        scheduler=scheduler(),
    )


def text_to_shape() -> Mapping[str, Any]:
    return {"prompt": "a cat"}


def image_to_shape() -> Mapping[str, Any]:
    return {"image": picture()}


RECIPES = (
    PipelineRecipe("ShapEPipeline", from_prompt, text_to_shape),
    PipelineRecipe("ShapEImg2ImgPipeline", from_image, image_to_shape),
)
