"""Cosmos, which makes videos of simulated worlds."""

import math

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text
from bench.denoisers.video_inputs import video_and_text

# Cosmos resizes its padding mask with torchvision, which is not required here.
UNPADDED: Config = {"concat_padding_mask": False}


def cosmos(config: Config, full: bool) -> Inputs:
    """Cosmos text-to-world: 121 frames of 704x1280, and a padding mask in pixels."""
    words = text(full, 512, config["text_embed_dim"])
    call = video_and_text(config, full, (16, 88, 160), words, 0.5)
    height, width = call["hidden_states"].shape[3:]
    padding = torch.zeros(1, 1, 8 * height, 8 * width) if config["concat_padding_mask"] else None
    return call | {"fps": 30, "padding_mask": padding}


def cosmos3(config: Config, full: bool) -> Inputs:
    """Cosmos 3: a prompt's tokens, then those of 93 frames of 704x1280, all of them noisy."""
    words, frames, height, width = (512, 24, 44, 80) if full else (5, 2, 4, 4)
    patch = config["latent_patch_size"]
    shape = (frames, height // patch, width // patch)
    vision = math.prod(shape)
    indexes = torch.arange(words, words + vision)
    return {
        "input_ids": torch.randint(config["vocab_size"], (words,)),
        "text_indexes": torch.arange(words),
        "position_ids": torch.arange(words + vision).expand(3, -1),
        "und_len": words,
        "sequence_length": words + vision,
        "vision_tokens": [torch.randn(1, config["latent_channel"], frames, height, width)],
        "vision_token_shapes": [shape],
        "vision_sequence_indexes": indexes,
        "vision_mse_loss_indexes": indexes.clone(),
        "vision_timesteps": torch.full((vision,), 500.0),
        "vision_noisy_frame_indexes": [torch.arange(frames)],
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "CosmosTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "text_embed_dim": 16,
            "adaln_lora_dim": 8,
            "max_size": (4, 8, 8),
            **UNPADDED,
        },
        cosmos,
        UNPADDED,
    ),
    Recipe(
        "Cosmos3OmniTransformer",
        {
            "head_dim": 16,
            "hidden_size": 32,
            "intermediate_size": 48,
            "latent_channel": 4,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "patch_latent_dim": 16,
            "vocab_size": 64,
            "rope_axes_dim": (4, 2, 2),
        },
        cosmos3,
        latent="vision_tokens",
    ),
)
