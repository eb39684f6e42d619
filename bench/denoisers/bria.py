"""Bria's image transformers."""

import torch

from bench.denoisers.flux import FLUX_TINY
from bench.denoisers.image_inputs import image_and_text, placed_and_text
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text, timestep


def bria(config: Config, full: bool) -> Inputs:
    return placed_and_text(config, full, 128) | {"timestep": timestep()}


def bria_fibo(config: Config, full: bool) -> Inputs:
    """The text encoder's states twice: its last two layers, and one layer for every block."""
    blocks = config["num_layers"] + config["num_single_layers"]
    layers = [text(full, 128, config["text_encoder_dim"]) for _ in range(blocks)]
    return bria(config, full) | {"text_encoder_layers": layers}


def bria_fibo2(config: Config, full: bool) -> Inputs:
    """One set of text states for the perceiver and one for each injecting block.

    A single prompt is not padded, and the pipeline passes no mask then.
    """
    bundles = 1 + len(config["injection_layer_ids"])
    words = torch.randn(1, bundles, *text(full, 512, config["cap_feat_dim"]).shape[1:])
    return image_and_text(config, full, words, 0.5)


RECIPES: tuple[Recipe, ...] = (
    Recipe("BriaTransformer2DModel", FLUX_TINY, bria),
    Recipe("BriaFiboTransformer2DModel", {**FLUX_TINY, "text_encoder_dim": 12}, bria_fibo),
    Recipe(
        "BriaFibo2Transformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 4,
            "n_heads": 2,
            "cap_feat_dim": 24,
            "injection_layer_ids": (1, 3),
            "min_num_gist_tokens": 4,
            "max_num_gist_tokens": 8,
            "gist_step": 2,
            "gist_min_text_len": 4,
            "gist_max_text_len": 16,
            "axes_dims": (4, 6, 6),
            "axes_lens": (32, 16, 16),
        },
        bria_fibo2,
    ),
)
