"""U-Nets of videos, and their temporal layers."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text
from bench.denoisers.unets import UNET_TINY


def unet_clip(config: Config, full: bool, size: tuple[int, int]) -> Inputs:
    """Build the inputs of a U-Net over 16 frames of ``size``."""
    clip = (16, *size) if full else (2, 16, 16)
    return {
        "sample": torch.randn(1, config["in_channels"], *clip),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": text(full, 77, config["cross_attention_dim"]),
    }


def unet_3d(config: Config, full: bool) -> Inputs:
    return unet_clip(config, full, (32, 32))


def i2vgen(config: Config, full: bool) -> Inputs:
    call = unet_clip(config, full, (88, 160))
    return call | {
        "fps": torch.full((1,), 16),
        "image_latents": torch.randn_like(call["sample"]),
        "image_embeddings": torch.randn(1, config["cross_attention_dim"]),
    }


def unet_motion(config: Config, full: bool) -> Inputs:
    """Build inputs with the prompt once for every frame."""
    call = unet_clip(config, full, (64, 64))
    words, frames = call["encoder_hidden_states"], call["sample"].shape[2]
    return call | {"encoder_hidden_states": words.repeat(frames, 1, 1)}


def unet_video(config: Config, full: bool) -> Inputs:
    """Stable Video Diffusion: the noise and the image's latent, frame by frame."""
    clip = (config["num_frames"], config["in_channels"], 72, 128) if full else (2, 8, 16, 16)
    return {
        "sample": torch.randn(1, *clip),
        "timestep": torch.tensor(1.5),
        "encoder_hidden_states": torch.randn(1, 1, config["cross_attention_dim"]),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }


def temporal(config: Config, full: bool) -> Inputs:
    """Build the inputs of a U-Net's temporal layer, with the frames of a video in the batch."""
    frames, side = (16, 32) if full else (3, 4)
    return {
        "hidden_states": torch.randn(frames, config["in_channels"], side, side),
        "num_frames": frames,
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe("UNet3DConditionModel", {**UNET_TINY, "attention_head_dim": 4}, unet_3d),
    Recipe("I2VGenXLUNet", {**UNET_TINY, "attention_head_dim": 4}, i2vgen),
    Recipe(
        "UNetMotionModel",
        {**UNET_TINY, "num_attention_heads": 2, "motion_num_attention_heads": 2},
        unet_motion,
    ),
    Recipe(
        "UNetSpatioTemporalConditionModel",
        {
            # Its norms have 32 groups, whatever the width.
            "block_out_channels": (32, 32, 32, 32),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "cross_attention_dim": 12,
            "num_attention_heads": (2, 2, 2, 2),
        },
        unet_video,
    ),
    Recipe(
        "TransformerTemporalModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 16,
            "num_layers": 2,
            "norm_num_groups": 4,
        },
        temporal,
        {"num_attention_heads": 8, "attention_head_dim": 64, "in_channels": 320},
    ),
)
