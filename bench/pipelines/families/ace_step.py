"""The pipeline of ACE-Step."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)

from bench.pipelines.parts import WIDTH, assembled, denoiser, model, noise, qwen3_text, tokenizer
from bench.pipelines.recipe import PipelineRecipe

LATENT = 8  # the channels of the autoencoder
RATE = 8  # the samples of a second
ENCODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def ace_step() -> Any:
    autoencoder = model(
        diffusers.AutoencoderOobleck,
        encoder_hidden_size=2 * LATENT,
        downsampling_ratios=[2],
        channel_multiples=[1],
        decoder_channels=LATENT,
        decoder_input_channels=LATENT,
        sampling_rate=RATE,
    )
    conditions = model(
        AceStepConditionEncoder,
        text_hidden_dim=WIDTH,
        timbre_hidden_dim=LATENT,
        num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
        **ENCODER,
    )
    codes = {"audio_acoustic_hidden_dim": LATENT, "pool_window_size": 2, **ENCODER}
    return assembled(
        "AceStepPipeline",
        vae=autoencoder,
        text_encoder=qwen3_text(),
        tokenizer=tokenizer(),
        transformer=denoiser("AceStepTransformer1DModel"),
        condition_encoder=conditions,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        audio_tokenizer=model(AceStepAudioTokenizer, fsq_dim=WIDTH, **codes),
        audio_token_detokenizer=model(AceStepAudioTokenDetokenizer, **codes),
    )


def cover() -> Mapping[str, Any]:
    """Ask for a cover of a piece of music, of which a part follows the prompt alone."""
    return {
        "prompt": "a cat",
        "lyrics": "a dog",
        "task_type": "cover",
        "src_audio": noise(2, 4 * RATE),
        "reference_audio": noise(2, 4 * RATE, seed=1),
        "audio_duration": 4.0,
        "audio_cover_strength": 0.5,
    }


RECIPES = (PipelineRecipe("AceStepPipeline", ace_step, cover, trajectories={"transformer": 2}),)
