"""Pipelines whose latents are tokens of a codebook: aMUSEd and VQ Diffusion."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
    LearnedClassifierFreeSamplingEmbeddings,
)

from bench.pipelines.image_parts import codebook
from bench.pipelines.parts import (
    LONGEST_PROMPT,
    WIDTH,
    assembled,
    clip_text,
    denoiser,
    mask,
    model,
    noise,
    picture,
    square,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe

WORDS, POOLED = 20, 12  # the widths of the states and the embedding that aMUSEd takes
CODES = 50


def amused(kind: str) -> Any:
    """Build a pipeline whose token ``CODES`` and above mean a hidden one."""
    return assembled(
        kind,
        vqvae=codebook(8, CODES),
        transformer=denoiser("UVit2DModel", codebook_size=CODES, vocab_size=CODES + 10),
        scheduler=diffusers.AmusedScheduler(mask_token_id=CODES + 9),
    )


def vq_diffusion() -> Any:
    transformer = denoiser(
        "Transformer2DModel",
        in_channels=None,
        num_attention_heads=2,
        attention_head_dim=8,
        sample_size=8,
        num_vector_embeds=CODES + 1,
        cross_attention_dim=WIDTH,
        activation_fn="geglu-approximate",
        attention_bias=True,
        num_embeds_ada_norm=7,
        norm_type="ada_norm",
    )
    return assembled(
        "VQDiffusionPipeline",
        vqvae=codebook(4, CODES),
        text_encoder=clip_text(),
        tokenizer=tokenizer(),
        transformer=transformer,
        scheduler=diffusers.VQDiffusionScheduler(
            num_vec_classes=transformer.num_vector_embeds, num_train_timesteps=7
        ),
        learned_classifier_free_sampling_embeddings=model(
            LearnedClassifierFreeSamplingEmbeddings,
            learnable=True,
            hidden_size=WIDTH,
            length=LONGEST_PROMPT,
        ),
    )


def words() -> dict[str, Any]:
    return {
        "prompt_embeds": noise(1, POOLED),
        "encoder_hidden_states": noise(1, 7, WORDS),
        "negative_prompt_embeds": noise(1, POOLED, seed=1),
        "negative_encoder_hidden_states": noise(1, 7, WORDS, seed=1),
    }


def text_to_image() -> Mapping[str, Any]:
    return {**words(), **square(32)}


def from_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(), "strength": 0.8}


def inpainting() -> Mapping[str, Any]:
    return {**from_image(), "mask_image": mask()}


RECIPES = (
    *(
        PipelineRecipe(kind, partial(amused, kind), call, steps)
        for kind, call, steps in (
            ("AmusedPipeline", text_to_image, 7),
            ("AmusedImg2ImgPipeline", from_image, 9),
            ("AmusedInpaintPipeline", inpainting, 9),
        )
    ),
    PipelineRecipe(
        "VQDiffusionPipeline", vq_diffusion, lambda: {"prompt": "a cat", "output_type": "np"}
    ),
)
