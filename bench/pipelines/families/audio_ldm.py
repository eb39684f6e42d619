"""Pipelines of AudioLDM, AudioLDM 2 and MusicLDM."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import torch
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2LMHeadModel,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from bench.pipelines.parts import WIDTH, assembled, denoiser, model, noise, prompt, t5_text, vae
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import ddim

WORDS = 16
MEL_BANDS = 32


def clap_text() -> Any:
    config = ClapTextConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=WORDS,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return model(lambda: ClapTextModelWithProjection(config))


def vocoder() -> Any:
    config = SpeechT5HifiGanConfig(
        model_in_dim=MEL_BANDS,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    )
    return model(lambda: SpeechT5HifiGan(config))


def shared() -> dict[str, Any]:
    """Build the parts that all three pipelines have."""
    return {
        "vae": vae(in_channels=1, out_channels=1),
        "vocoder": vocoder(),
        "scheduler": ddim(),
    }


def audio_ldm(kind: str) -> Any:
    """Build a pipeline whose U-Net adds the prompt's embedding to the timestep's."""
    widths = (8, 16, 32, 32)
    unet = denoiser(
        "UNet2DConditionModel",
        sample_size=16,
        block_out_channels=widths,
        cross_attention_dim=widths,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=WORDS,
        class_embeddings_concat=True,
    )
    return assembled(kind, unet=unet, text_encoder=clap_text(), **shared())


def audio_ldm2() -> Any:
    """Build a pipeline whose U-Net attends to the prompt and to a language model's states."""
    unet = model(
        diffusers.AudioLDM2UNet2DConditionModel,
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=[[None, WORDS, WIDTH]] * 2,
    )
    language = GPT2Config(vocab_size=64, n_positions=64, n_embd=WORDS, n_layer=2, n_head=2)
    return assembled(
        "AudioLDM2Pipeline",
        unet=unet,
        text_encoder_2=t5_text(),
        language_model=model(lambda: GPT2LMHeadModel(language)),
        **shared(),
    )


def embedded() -> Mapping[str, Any]:
    embeddings = {
        "prompt_embeds": noise(1, WORDS),
        "negative_prompt_embeds": noise(1, WORDS, seed=1),
    }
    return {**embeddings, "output_type": "np"}


def generated() -> Mapping[str, Any]:
    return {
        **prompt(7, WIDTH),
        "generated_prompt_embeds": noise(1, 8, WORDS, seed=2),
        "negative_generated_prompt_embeds": noise(1, 8, WORDS, seed=3),
        "attention_mask": torch.ones(1, 7, dtype=torch.long),
        "negative_attention_mask": torch.ones(1, 7, dtype=torch.long),
    }


RECIPES = (
    PipelineRecipe("AudioLDMPipeline", partial(audio_ldm, "AudioLDMPipeline"), embedded),
    PipelineRecipe("MusicLDMPipeline", partial(audio_ldm, "MusicLDMPipeline"), embedded),
    PipelineRecipe("AudioLDM2Pipeline", audio_ldm2, generated),
)
