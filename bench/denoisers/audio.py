"""Denoisers of music, speech and other sounds."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import rotary, text, text_mask, timestep


def stable_audio(config: Config, full: bool) -> Inputs:
    """Stable Audio Open: 128 text tokens, then the start and the length in seconds."""
    length = config["sample_size"]
    return {
        "hidden_states": torch.randn(1, config["in_channels"], length),
        "timestep": timestep(0.5),
        "encoder_hidden_states": text(full, 130, config["cross_attention_input_dim"]),
        "global_hidden_states": torch.randn(1, 1, config["global_states_input_dim"]),
        "rotary_embedding": rotary(length + 1, config["attention_head_dim"] // 2),
    }


def stable_audio3(config: Config, full: bool) -> Inputs:
    """Stable Audio 3: the prompt's tokens and one for the duration, which is also global."""
    return {
        "hidden_states": torch.randn(1, config["io_channels"], 1024 if full else 8),
        "timestep": timestep(0.5),
        "encoder_hidden_states": text(full, 257, config["cond_token_dim"]),
        "global_hidden_states": torch.randn(1, config["global_cond_dim"]),
        "encoder_attention_mask": text_mask(full, 257),
    }


def ace_step(config: Config, full: bool) -> Inputs:
    """ACE-Step: a minute of music, the source latents and their mask beside it."""
    length = 1500 if full else 8
    latent = config["audio_acoustic_hidden_dim"]
    width = config["encoder_hidden_size"] or config["hidden_size"]
    return {
        "hidden_states": torch.randn(1, length, latent),
        "timestep": timestep(0.5),
        "timestep_r": timestep(0.5),
        "encoder_hidden_states": text(full, 768, width),
        "context_latents": torch.randn(1, length, config["in_channels"] - latent),
    }


def longcat_audio(config: Config, full: bool) -> Inputs:
    """LongCat AudioDiT: half a minute of speech."""
    length = 351 if full else 8
    words = text(full, 256, config["dit_text_dim"])
    return {
        "hidden_states": torch.randn(1, length, config["latent_dim"]),
        "encoder_hidden_states": words,
        "encoder_attention_mask": torch.ones(words.shape[:2], dtype=torch.bool),
        "timestep": timestep(0.5),
        "attention_mask": torch.ones(1, length, dtype=torch.bool),
        "latent_cond": torch.zeros(1, length, config["latent_dim"]),
    }


def t5_film(config: Config, full: bool) -> Inputs:
    """Spectrogram diffusion: encoded notes, the encoded past, and the spectrogram to denoise."""
    length = config["targets_length"]
    notes = text(full, 2048, config["d_model"])
    past = torch.randn(1, length, config["d_model"])
    return {
        "encodings_and_masks": [
            (notes, text_mask(full, 2048).bool()),
            (past, torch.ones(1, length, dtype=torch.bool)),
        ],
        "decoder_input_tokens": torch.randn(1, length, config["input_dims"]),
        "decoder_noise_time": timestep(0.5),
    }


def music3(config: Config, full: bool) -> Inputs:
    """MiniMax Music 3's flow decoder: one frame of condition for every frame of latent."""
    length = 1024 if full else 8
    return {
        "hidden_states": torch.randn(1, config["in_channels"], length),
        "timestep": timestep(0.5),
        "encoder_hidden_states": torch.randn(1, length, config["condition_dim"]),
    }


def music3_depth(config: Config, full: bool) -> Inputs:  # noqa: ARG001
    """MiniMax Music 3's decoder of codebooks: no denoiser; the codes of one frame so far."""
    return {"inputs_embeds": torch.randn(1, config["num_codebooks"], config["hidden_size"])}


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "StableAudioDiTModel",
        {
            "sample_size": 16,
            "in_channels": 8,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "out_channels": 8,
            "cross_attention_dim": 32,
            "time_proj_dim": 16,
            "global_states_input_dim": 32,
            "cross_attention_input_dim": 32,
        },
        stable_audio,
    ),
    Recipe(
        "StableAudio3DiTModel",
        {
            "io_channels": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "cond_token_dim": 16,
            "global_cond_dim": 16,
            "local_add_cond_dim": 9,
            "timestep_features_dim": 16,
            "num_memory_tokens": 4,
        },
        stable_audio3,
    ),
    Recipe(
        "AceStepTransformer1DModel",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "in_channels": 24,
            "audio_acoustic_hidden_dim": 8,
            "sliding_window": 2,
        },
        ace_step,
    ),
    Recipe(
        "LongCatAudioDiTTransformer",
        {"dit_dim": 32, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 16, "latent_dim": 8},
        longcat_audio,
    ),
    Recipe(
        "T5FilmDecoder",
        {
            "input_dims": 8,
            "targets_length": 8,
            "d_model": 24,
            "num_layers": 2,
            "num_heads": 2,
            "d_kv": 12,
            "d_ff": 32,
        },
        t5_film,
        latent="decoder_input_tokens",
        options={},
    ),
    Recipe(
        "MiniMaxMusic3Transformer1DModel",
        {
            "in_channels": 8,
            "condition_dim": 16,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "ff_inner_dim": 64,
            "rotary_dim": 8,
            "fourier_embedding_dim": 16,
        },
        music3,
    ),
    Recipe(
        "MiniMaxMusic3RVQDepthDecoder",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "audio_vocab_size": 16,
        },
        music3_depth,
        options={},
    ),
)
