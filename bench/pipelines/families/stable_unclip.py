"""Pipelines of Stable Diffusion around embeddings of images by CLIP."""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

from bench.pipelines.image_encoders import clip_image_processor, clip_vision_with_projection
from bench.pipelines.parts import (
    LONGEST_PROMPT,
    WIDTH,
    clip_text,
    clip_text_with_projection,
    denoiser,
    model,
    picture,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import SIZE, sd, unet


def variation() -> Any:
    return sd(
        "StableDiffusionImageVariationPipeline",
        image_encoder=clip_vision_with_projection(),
        feature_extractor=clip_image_processor(),
    )


def unclip(kind: str, **parts: Any) -> Any:
    """Build a pipeline whose U-Net has the noised embedding of an image in its time embedding."""
    return sd(
        kind,
        unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        text_encoder=clip_text(),
        tokenizer=tokenizer(),
        image_normalizer=model(StableUnCLIPImageNormalizer, embedding_dim=WIDTH),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **parts,
    )


def from_a_prompt() -> Any:
    return unclip(
        "StableUnCLIPPipeline",
        prior=denoiser("PriorTransformer", embedding_dim=WIDTH, num_embeddings=LONGEST_PROMPT),
        prior_text_encoder=clip_text_with_projection(),
        prior_tokenizer=tokenizer(),
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample"
        ),
    )


def from_a_picture() -> Any:
    return unclip(
        "StableUnCLIPImg2ImgPipeline",
        image_encoder=clip_vision_with_projection(),
        feature_extractor=clip_image_processor(),
    )


def recipe(build: Callable[[], Any], kind: str, **options: Any) -> PipelineRecipe:
    call: Mapping[str, Any] = {**SIZE, **options}
    return PipelineRecipe(kind, build, lambda: call)


RECIPES = (
    recipe(variation, "StableDiffusionImageVariationPipeline", image=picture()),
    recipe(from_a_prompt, "StableUnCLIPPipeline", prompt="cat", prior_num_inference_steps=7),
    recipe(
        from_a_picture, "StableUnCLIPImg2ImgPipeline", prompt="cat", image=picture(), noise_level=5
    ),
)
