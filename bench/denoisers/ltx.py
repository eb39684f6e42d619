"""LTX-Video, and LTX-2 with sound."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text, text_mask, timestep

LTX2_TINY: Config = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 8,
    "audio_out_channels": 8,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": 16,
}


def ltx(config: Config, full: bool) -> Inputs:
    """LTX-Video: 161 frames of 512x704, already in tokens."""
    frames, height, width = (21, 16, 22) if full else (2, 3, 3)
    return {
        "hidden_states": torch.randn(1, frames * height * width, config["in_channels"]),
        "encoder_hidden_states": text(full, 128, config["caption_channels"]),
        "timestep": timestep(),
        "encoder_attention_mask": text_mask(full, 128),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def ltx2(config: Config, full: bool) -> Inputs:
    """LTX-2: 121 frames of 512x768 and their sound, in tokens; each token's interval by axis."""
    frames, height, width, sound = (16, 16, 24, 126) if full else (2, 3, 3, 5)
    tokens = frames * height * width
    mask = torch.ones(1, 1024 if full else 5, dtype=torch.int64)
    return {
        "hidden_states": torch.randn(1, tokens, config["in_channels"]),
        "audio_hidden_states": torch.randn(1, sound, config["audio_in_channels"]),
        "encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "audio_encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "timestep": timestep(),
        "sigma": timestep(),
        "encoder_attention_mask": mask,
        "audio_encoder_attention_mask": mask,
        "num_frames": frames,
        "height": height,
        "width": width,
        "fps": 24.0,
        "audio_num_frames": sound,
        "video_coords": torch.rand(1, 3, tokens, 2),
        "audio_coords": torch.rand(1, 1, sound, 2),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "cross_attention_dim": 24,
            "num_layers": 2,
            "caption_channels": 16,
        },
        ltx,
    ),
    Recipe("LTX2VideoTransformer3DModel", LTX2_TINY, ltx2),
)
