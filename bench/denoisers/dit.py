"""DiT, and its first descendants that take a prompt: PixArt, Stable Diffusion 3, AuraFlow."""

import torch

from bench.denoisers.image_inputs import image_and_text, latent_side, latents
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, text, timestep


def dit(config: Config, full: bool) -> Inputs:
    return {
        "hidden_states": latents(config, latent_side(config, full)),
        "timestep": timestep(500),
        "class_labels": torch.full((1,), 3),
    }


def pixart(config: Config, full: bool) -> Inputs:
    width = config["caption_channels"] or config["cross_attention_dim"]
    return image_and_text(config, full, text(full, 120, width), 500) | {
        "encoder_attention_mask": prompt_mask(full, 120),
        "added_cond_kwargs": {
            "resolution": torch.full((1, 2), 8.0 * latent_side(config, full)),
            "aspect_ratio": torch.ones(1, 1),
        },
    }


def sd3(config: Config, full: bool) -> Inputs:
    words = text(full, 333, config["joint_attention_dim"])
    return image_and_text(config, full, words) | {
        "pooled_projections": torch.randn(1, config["pooled_projection_dim"])
    }


def aura_flow(config: Config, full: bool) -> Inputs:
    return image_and_text(config, full, text(full, 256, config["joint_attention_dim"]), 0.5)


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "sample_size": 8,
            "num_embeds_ada_norm": 10,
        },
        dit,
    ),
    Recipe(
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "cross_attention_dim": 24,
            "sample_size": 8,
            "use_additional_conditions": True,
            "caption_channels": 20,
        },
        pixart,
        # The published checkpoints project T5's states; the class's default takes them as wide
        # as the model.
        default={"caption_channels": 4096},
    ),
    Recipe(
        "SD3Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 12,
            "out_channels": 4,
            "pos_embed_max_size": 6,
        },
        sd3,
    ),
    Recipe(
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 8,
            "num_single_dit_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 16,
        },
        aura_flow,
    ),
)
