"""Pipelines of Stable Cascade: a prior of small latents, and the decoder that enlarges them."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.image_parts import clip_processor, clip_vision
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_text_with_projection,
    denoiser,
    noise,
    picture,
    square,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe


def cascade_prior() -> Any:
    return denoiser(
        "StableCascadeUNet",
        clip_text_in_channels=WIDTH,
        clip_text_pooled_in_channels=WIDTH,
        clip_image_in_channels=WIDTH,
        switch_level=(False,),
    )


def cascade_decoder() -> Any:
    return denoiser(
        "StableCascadeUNet",
        clip_text_pooled_in_channels=WIDTH,
        effnet_in_channels=4,
        pixel_mapper_in_channels=3,
        patch_size=2,
    )


def prior() -> Any:
    return assembled(
        "StableCascadePriorPipeline",
        prior=cascade_prior(),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        text_encoder=clip_text_with_projection(),
    )


def decoder() -> Any:
    scheduler = diffusers.DDPMWuerstchenScheduler()
    return assembled("StableCascadeDecoderPipeline", decoder=cascade_decoder(), scheduler=scheduler)


def combined() -> Any:
    return assembled(
        "StableCascadeCombinedPipeline",
        decoder=cascade_decoder(),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        prior_prior=cascade_prior(),
        prior_text_encoder=clip_text_with_projection(),
        prior_tokenizer=tokenizer(),
        prior_scheduler=diffusers.DDPMWuerstchenScheduler(),
        prior_feature_extractor=clip_processor(),
        prior_image_encoder=clip_vision(),
    )


def words() -> dict[str, Any]:
    return {
        "prompt_embeds": noise(1, 7, WIDTH),
        "prompt_embeds_pooled": noise(1, 1, WIDTH),
        "negative_prompt_embeds": noise(1, 7, WIDTH, seed=1),
        "negative_prompt_embeds_pooled": noise(1, 1, WIDTH, seed=1),
    }


def embedded() -> Mapping[str, Any]:
    image = noise(1, 1, WIDTH, seed=2)
    return {**words(), **square(256), "image_embeds": image, "output_type": "pt"}


def decoded() -> Mapping[str, Any]:
    return {**words(), "image_embeddings": noise(1, 4, 3, 3), "guidance_scale": 2.0}


def both() -> Mapping[str, Any]:
    return {
        **square(128),
        "prompt": "a cat",
        "images": [picture()],
        "prior_num_inference_steps": 7,
        "decoder_guidance_scale": 2.0,
    }


RECIPES = (
    PipelineRecipe("StableCascadePriorPipeline", prior, embedded),
    PipelineRecipe("StableCascadeDecoderPipeline", decoder, decoded),
    PipelineRecipe("StableCascadeCombinedPipeline", combined, both),
)
