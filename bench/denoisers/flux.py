"""FLUX, and image transformers with similar inputs."""

import torch

from bench.denoisers.image_inputs import packed_and_text, packed_side, placed_and_text
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import grid, prompt_mask, text

FLUX_TINY: Config = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}


def flux(config: Config, full: bool) -> Inputs:
    call = placed_and_text(config, full, 512)
    call["pooled_projections"] = torch.randn(1, config["pooled_projection_dim"])
    if config["guidance_embeds"]:
        call["guidance"] = torch.full((1,), 3.5)
    return call


def flux2(config: Config, full: bool) -> Inputs:
    side, words = packed_side(config, full), text(full, 512, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "guidance": torch.full((1,), 4.0),
        "txt_ids": grid(1, 1, 1, words.shape[1])[None],
        "img_ids": grid(1, side, side, 1)[None],
    }


def flux3(config: Config, full: bool) -> Inputs:
    """Text to image: without pictures to refer to."""
    side, words = packed_side(config, full), text(full, 512, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "img_ids": grid(1, side, side, 1) * torch.tensor([1.0, 0.5, 0.5, 1.0]),
        "txt_ids": grid(1, 1, 1, words.shape[1]).float(),
    }


def chroma(config: Config, full: bool) -> Inputs:
    """As FLUX, without a pooled prompt; the mask spans text and image and is of floats."""
    call = placed_and_text(config, full, 512)
    image = torch.ones(1, call["hidden_states"].shape[1])
    return call | {"attention_mask": torch.cat([prompt_mask(full, 512), image], dim=1)}


def diagonal_ids(config: Config, full: bool, tokens: int) -> Inputs:
    """As FLUX, without a pooled prompt; text lies on the diagonal of the image's plane."""
    call = placed_and_text(config, full, tokens)
    diagonal = torch.arange(len(call["txt_ids"])).float()
    return call | {"txt_ids": torch.stack([torch.zeros_like(diagonal), diagonal, diagonal], dim=1)}


def ovis_image(config: Config, full: bool) -> Inputs:
    return diagonal_ids(config, full, 256)


def long_cat_image(config: Config, full: bool) -> Inputs:
    """Build inputs in which the image's grid starts after the longest possible prompt."""
    call = diagonal_ids(config, full, 512)
    return call | {"img_ids": call["img_ids"] + torch.tensor([1.0, 512.0, 512.0])}


RECIPES: tuple[Recipe, ...] = (
    Recipe("FluxTransformer2DModel", {**FLUX_TINY, "pooled_projection_dim": 12}, flux),
    Recipe("Flux2Transformer2DModel", {**FLUX_TINY, "axes_dims_rope": (4, 4, 4, 4)}, flux2),
    Recipe(
        "Flux3Transformer2DModel",
        {**FLUX_TINY, "cond_in_channels": 16, "axes_dims_rope": (4, 4, 4, 4)},
        flux3,
    ),
    Recipe(
        "ChromaTransformer2DModel",
        {
            **FLUX_TINY,
            "approximator_num_channels": 16,
            "approximator_hidden_dim": 20,
            "approximator_layers": 4,
        },
        chroma,
    ),
    Recipe("OvisImageTransformer2DModel", {**FLUX_TINY, "out_channels": 16}, ovis_image),
    Recipe(
        "LongCatImageTransformer2DModel", {**FLUX_TINY, "pooled_projection_dim": 24}, long_cat_image
    ),
)
