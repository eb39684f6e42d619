"""Lumina and Z-Image."""

import torch

from bench.denoisers.image_inputs import image_and_text, latent_side
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, text, timestep


def lumina_next(config: Config, full: bool) -> Inputs:
    side = latent_side(config, full)
    table = 384 if full else side
    angles = torch.rand(table, table, config["hidden_size"] // config["num_attention_heads"] // 2)
    return image_and_text(config, full, text(full, 256, config["cross_attention_dim"]), 0.5) | {
        "encoder_mask": prompt_mask(full, 256),
        "image_rotary_emb": torch.polar(torch.ones_like(angles), angles),
        "cross_attention_kwargs": {"base_sequence_length": (side // config["patch_size"]) ** 2},
    }


def lumina2(config: Config, full: bool) -> Inputs:
    words = text(full, 256, config["cap_feat_dim"])
    mask = {"encoder_attention_mask": prompt_mask(full, 256)}
    return image_and_text(config, full, words, 0.5) | mask


def z_image(config: Config, full: bool) -> Inputs:
    """One image and one prompt, each in a list of its own: [channels, frames, height, width]."""
    side = latent_side(config, full)
    return {
        "x": [torch.randn(config["in_channels"], 1, side, side)],
        "t": timestep(0.5),
        "cap_feats": [text(full, 128, config["cap_feat_dim"])[0]],
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "LuminaNextDiT2DModel",
        {
            "sample_size": 8,
            "hidden_size": 32,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "multiple_of": 16,
            "cross_attention_dim": 24,
        },
        lumina_next,
        # The class takes None for "as many as heads" and fails on it.
        default={"num_kv_heads": 8},
    ),
    Recipe(
        "Lumina2Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 48,
            "num_layers": 2,
            "num_attention_heads": 6,
            "num_kv_heads": 2,
            "multiple_of": 16,
            "axes_dim_rope": (2, 2, 4),
            "axes_lens": (30, 32, 32),
            "cap_feat_dim": 20,
        },
        lumina2,
    ),
    Recipe(
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 24,
            "axes_dims": [4, 6, 6],
            "axes_lens": [64, 16, 16],
        },
        z_image,
    ),
)
