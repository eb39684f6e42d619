"""Qwen-Image, and Nucleus, which has the same inputs."""

import torch

from bench.denoisers.image_inputs import packed_and_text, packed_side
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text

QWEN_TINY: Config = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}


def qwen_image(config: Config, full: bool) -> Inputs:
    side, words = packed_side(config, full), text(full, 128, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {"img_shapes": [[(1, side, side)]]}


def qwen_image21(config: Config, full: bool) -> Inputs:
    """``img_mask`` has a place for every word and for every four tokens of the image."""
    side, words = packed_side(config, full), text(full, 128, config["context_in_dim"])
    length = words.shape[1]
    return packed_and_text(config, full, words) | {
        "img_shapes": [[(1, side, side)]],
        "img_mask": torch.arange(length + side * side // 4)[None] >= length,
    }


def nucleus(config: Config, full: bool) -> Inputs:
    call = qwen_image(config, full)
    return call | {"img_shapes": call["img_shapes"][0]}


RECIPES: tuple[Recipe, ...] = (
    Recipe("QwenImageTransformer2DModel", QWEN_TINY, qwen_image),
    Recipe(
        "QwenImage21Transformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "context_in_dim": 24,
            "axes_dims_rope": (4, 6, 6),
        },
        qwen_image21,
    ),
    Recipe(
        "NucleusMoEImageTransformer2DModel",
        {
            **QWEN_TINY,
            # The first three blocks and the last have no experts.
            "num_layers": 8,
            # The width of the blocks without experts is rounded down to a multiple of 128.
            "mlp_ratio": 6.0,
            "num_experts": 4,
            "moe_intermediate_dim": 16,
            "capacity_factors": 2.0,
        },
        nucleus,
    ),
)
