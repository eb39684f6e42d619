"""Pipelines of Stable Audio Open and Stable Audio 3."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

from bench.pipelines.parts import WIDTH, assembled, denoiser, model, noise, prompt
from bench.pipelines.recipe import PipelineRecipe

RATE = 16  # the samples of a second
WORDS = 16


def open_audio() -> Any:
    """Build Stable Audio Open, with an autoencoder of 8 channels at half the rate."""
    autoencoder = model(
        diffusers.AutoencoderOobleck,
        encoder_hidden_size=16,
        downsampling_ratios=[2],
        channel_multiples=[1],
        decoder_channels=8,
        decoder_input_channels=8,
        sampling_rate=RATE,
    )
    projection = model(
        StableAudioProjectionModel,
        text_encoder_dim=WORDS,
        conditioning_dim=WIDTH,
        min_value=0,
        max_value=32,
    )
    return assembled(
        "StableAudioPipeline",
        vae=autoencoder,
        projection_model=projection,
        transformer=denoiser("StableAudioDiTModel", global_states_input_dim=2 * WIDTH),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(),
    )


def audio3(kind: str) -> Any:
    """Build Stable Audio 3, with an autoencoder of 8 channels at an eighth of the rate."""
    autoencoder = model(
        diffusers.AutoencoderSAME,
        patch_size=4,
        encoder_channels=8,
        encoder_c_mults=[2],
        encoder_strides=[2],
        encoder_transformer_depths=[2],
        latent_dim=8,
        dim_heads=8,
        sampling_rate=RATE,
    )
    return assembled(
        kind,
        vae=autoencoder,
        duration_embedder=model(StableAudio3DurationEmbedder, output_dim=WORDS, fourier_dim=16),
        transformer=denoiser("StableAudio3DiTModel"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def text_to_audio() -> Mapping[str, Any]:
    return {**prompt(7, WORDS), "audio_end_in_s": 2.0}


def guided() -> Mapping[str, Any]:
    return {**prompt(7, WORDS), "duration": 8.0, "guidance_scale": 3.0}


def waveform() -> dict[str, Any]:
    return {"prompt_embeds": noise(1, 7, WORDS), "duration": 8.0, "audio": noise(1, 2, 8 * RATE)}


def changed() -> Mapping[str, Any]:
    return {**waveform(), "init_noise_level": 0.8}


def inpainting() -> Mapping[str, Any]:
    return {**waveform(), "mask_start_seconds": 2.0, "mask_end_seconds": 6.0}


RECIPES = (
    PipelineRecipe("StableAudioPipeline", open_audio, text_to_audio),
    *(
        PipelineRecipe(kind, partial(audio3, kind), call)
        for kind, call in (
            ("StableAudio3Pipeline", guided),
            ("StableAudio3AudioToAudioPipeline", changed),
            ("StableAudio3InpaintPipeline", inpainting),
        )
    ),
)
