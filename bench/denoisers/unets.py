"""U-Nets of Stable Diffusion, DreamLite and Stable Cascade; plain ones; stacks of their layers."""

import torch

from bench.denoisers.image_inputs import latent_side, latents
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, text, timestep

UNET_TINY: Config = {
    "block_out_channels": (8, 16, 32, 32),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
}

# A stack of attention blocks, and the deepest one of SDXL's U-Net.
STACK_TINY: Config = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 32,
    "num_layers": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 24,
}
STACK_SDXL: Config = {
    "num_attention_heads": 20,
    "attention_head_dim": 64,
    "in_channels": 1280,
    "num_layers": 10,
    "cross_attention_dim": 2048,
}


def unet_1d(config: Config, full: bool) -> Inputs:
    length = config["sample_size"] if full else 64
    return {"sample": torch.randn(1, config["in_channels"], length), "timestep": torch.tensor(500)}


def unet_2d(config: Config, full: bool) -> Inputs:
    return {
        "sample": latents(config, latent_side(config, full, native=64, tiny=16)),
        "timestep": torch.tensor(500),
    }


def unet_condition(config: Config, full: bool) -> Inputs:
    words = text(full, 77, config["cross_attention_dim"])
    return unet_2d(config, full) | {"encoder_hidden_states": words}


def dream_lite(config: Config, full: bool) -> Inputs:
    """Build inputs with the latent and the image to edit concatenated."""
    side = latent_side(config, full)
    return {
        "sample": torch.randn(1, config["in_channels"], side, 2 * side),
        "timestep": timestep(),
        "encoder_hidden_states": text(full, 256, config["cross_attention_dim"]),
        "encoder_attention_mask": prompt_mask(full, 256),
        "added_cond_kwargs": {"time_ids": torch.full((1, 2), 8.0 * side)},
    }


def stable_cascade(config: Config, full: bool) -> Inputs:
    """Build the prior's inputs, with text and image tokens only if the model maps them."""
    call = {
        "sample": latents(config, 24 if full else 8),
        "timestep_ratio": timestep(0.5),
        "clip_text_pooled": torch.randn(1, 1, config["clip_text_pooled_in_channels"]),
    }
    if config["clip_text_in_channels"] and config["clip_image_in_channels"]:
        call["clip_text"] = text(full, 77, config["clip_text_in_channels"])
        call["clip_img"] = torch.randn(1, 1, config["clip_image_in_channels"])
    return call


def transformer_2d(config: Config, full: bool) -> Inputs:
    """Build the inputs of a stack of a U-Net's attention blocks, with a feature map."""
    return {
        "hidden_states": latents(config, 32 if full else 4),
        "encoder_hidden_states": text(full, 77, config["cross_attention_dim"]),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "UNet1DModel",
        {"sample_size": 64, "extra_in_channels": 32, "block_out_channels": (16, 32, 32)},
        unet_1d,
        # Room for the features of the time, which the first block appends to the sample.
        default={"extra_in_channels": 64},
    ),
    Recipe("UNet2DModel", {"block_out_channels": (8, 16, 16, 32), "norm_num_groups": 4}, unet_2d),
    Recipe("UNet2DConditionModel", {**UNET_TINY, "attention_head_dim": 2}, unet_condition),
    Recipe(
        "DreamLiteUNetModel",
        {
            "block_out_channels": (8, 16, 32),
            "norm_num_groups": 4,
            "cross_attention_dim": 12,
            "attention_head_dim": 2,
        },
        dream_lite,
    ),
    Recipe(
        "StableCascadeUNet",
        {
            "in_channels": 4,
            "out_channels": 4,
            "timestep_ratio_embedding_dim": 8,
            "conditioning_dim": 24,
            "block_out_channels": (16, 32),
            "num_attention_heads": (2, 4),
            "down_num_layers_per_block": (2, 4),
            "up_num_layers_per_block": (4, 2),
            "clip_text_pooled_in_channels": 20,
        },
        stable_cascade,
    ),
    Recipe(
        "Transformer2DModel",
        STACK_TINY,
        transformer_2d,
        default={**STACK_SDXL, "use_linear_projection": True},
    ),
    Recipe(
        "DreamLiteTransformer2DModel",
        {**STACK_TINY, "qk_norm": "rms_norm"},
        transformer_2d,
        default={**STACK_SDXL, "num_layers": 4, "qk_norm": "rms_norm"},
    ),
)
