"""Kandinsky: the prior, the U-Net and the video transformers."""

import torch

from bench.denoisers.image_inputs import latent_side, latents
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, text, timestep

KANDINSKY_TINY: Config = {
    "time_dim": 16,
    "model_dim": 32,
    "ff_dim": 48,
    "num_visual_blocks": 2,
    "axes_dims": (4, 6, 6),
}
PROMPT_TINY: Config = {"in_text_dim": 16, "in_text_dim2": 12, "num_text_blocks": 2}


def prior(config: Config, full: bool) -> Inputs:  # noqa: ARG001
    """Build inputs whose latent and conditioning are image embeddings."""
    width, tokens = config["embedding_dim"], config["num_embeddings"]
    return {
        "hidden_states": torch.randn(1, width),
        "timestep": torch.tensor(500),
        "proj_embedding": torch.randn(1, width),
        "encoder_hidden_states": torch.randn(1, tokens, width),
        "attention_mask": prompt_mask(True, tokens).bool(),
    }


def kandinsky3(config: Config, full: bool) -> Inputs:
    return {
        "sample": latents(config, latent_side(config, full, tiny=16)),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": text(full, 128, config["encoder_hid_dim"]),
        "encoder_attention_mask": prompt_mask(full, 128),
    }


def kandinsky(config: Config, full: bool) -> Inputs:
    """121 frames of 512x768, channels last."""
    clip = (31, 64, 96) if full else (2, 4, 4)
    channels = config["in_visual_dim"] * (1 + config["visual_cond"]) + config["visual_cond"]
    return {
        "hidden_states": torch.randn(1, *clip, channels),
        "encoder_hidden_states": text(full, 256, config["in_text_dim"]),
        "pooled_projections": torch.randn(1, config["in_text_dim2"]),
        "timestep": timestep(),
    }


def kandinsky5(config: Config, full: bool) -> Inputs:
    """Kandinsky 5: positions for every axis."""
    call = kandinsky(config, full)
    _, frames, height, width, _ = call["hidden_states"].shape
    return call | {
        "visual_rope_pos": [torch.arange(size) for size in (frames, height // 2, width // 2)],
        "text_rope_pos": torch.arange(call["encoder_hidden_states"].shape[1]),
        "scale_factor": (1.0, 2.0, 2.0),
    }


def kandinsky6(config: Config, full: bool) -> Inputs:
    """Kandinsky 6 text-to-video-and-audio: the frames and their sound."""
    call = kandinsky(config, full)
    sound = torch.randn(1, 218 if full else 6, config["in_audio_dim"])
    return call | {"audio_hidden_states": sound, "visual_rope_pos": None}


def kandinsky6_sr(config: Config, full: bool) -> Inputs:
    """Kandinsky 6's upscaler: a tile of 512x768; latent, anchor and the anchor's mask."""
    tile = (31, 32, 48) if full else (2, 16, 16)
    return {
        "hidden_states": torch.randn(1, *tile, 2 * config["in_visual_dim"] + 1),
        "timestep": timestep(),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "PriorTransformer",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "embedding_dim": 12,
            "num_embeddings": 7,
        },
        prior,
    ),
    Recipe(
        "Kandinsky3UNet",
        {
            "time_embedding_dim": 16,
            "groups": 4,
            "attention_head_dim": 4,
            "block_out_channels": (8, 16, 32, 32),
            "cross_attention_dim": 12,
            "encoder_hid_dim": 20,
        },
        kandinsky3,
    ),
    Recipe("Kandinsky5Transformer3DModel", {**KANDINSKY_TINY, **PROMPT_TINY}, kandinsky5),
    Recipe(
        "Kandinsky6Transformer3DModel",
        {
            **KANDINSKY_TINY,
            **PROMPT_TINY,
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_audio_dim": 6,
            "out_audio_dim": 6,
        },
        kandinsky6,
    ),
    Recipe(
        "Kandinsky6SRTransformer3DModel",
        {**KANDINSKY_TINY, "in_visual_dim": 4, "out_visual_dim": 8},
        kandinsky6_sr,
    ),
)
