"""The pipeline of LongCat AudioDiT."""

from collections.abc import Mapping
from typing import Any

import diffusers
from transformers import UMT5Config, UMT5EncoderModel

from bench.pipelines.parts import assembled, denoiser, model, tokenizer
from bench.pipelines.recipe import PipelineRecipe

WORDS = 16


def longcat_audio() -> Any:
    autoencoder = model(
        diffusers.LongCatAudioDiTVae,
        channels=8,
        c_mults=[1, 2],
        strides=[2],
        latent_dim=8,
        encoder_latent_dim=16,
        downsampling_ratio=2,
        sample_rate=16,
    )
    words = UMT5Config(vocab_size=64, d_model=WORDS, d_kv=8, d_ff=64, num_layers=2, num_heads=2)
    return assembled(
        "LongCatAudioDiTPipeline",
        vae=autoencoder,
        text_encoder=model(lambda: UMT5EncoderModel(words)),
        tokenizer=tokenizer(),
        transformer=denoiser("LongCatAudioDiTTransformer"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
    )


def text_to_speech() -> Mapping[str, Any]:
    return {"prompt": "a cat", "negative_prompt": "a dog", "audio_duration_s": 2.0}


RECIPES = (
    PipelineRecipe(
        "LongCatAudioDiTPipeline", longcat_audio, text_to_speech, trajectories={"transformer": 2}
    ),
)
