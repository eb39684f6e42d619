"""Video transformers that are the only ones of their families."""

import math

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import grid, rotary, text, text_mask, timestep
from bench.denoisers.video_inputs import video_and_text

LATTE: Config = {
    "in_channels": 4,
    "out_channels": 8,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
}


def allegro(config: Config, full: bool) -> Inputs:
    """Allegro: 88 frames of 720x1280; rotary tables and the position of every token."""
    words = text(full, 512, config["caption_channels"])
    call = video_and_text(config, full, (22, 90, 160), words, 500)
    frames, height, width = call["hidden_states"].shape[2:]
    patches = (frames, height // config["patch_size"], width // config["patch_size"])
    tables = tuple(rotary(size, config["attention_head_dim"] // 3) for size in patches)
    positions = tuple(grid(*patches).T.unsqueeze(1))
    return call | {
        "encoder_attention_mask": text_mask(full, 512),
        "image_rotary_emb": (tables, positions),
    }


def easyanimate(config: Config, full: bool) -> Inputs:
    """EasyAnimate: 49 frames of 512x512."""
    return video_and_text(config, full, (13, 64, 64), text(full, 256, config["text_embed_dim"]))


def latte(config: Config, full: bool) -> Inputs:
    """Latte: 16 frames of 512x512; the size is the configuration's."""
    side = config["sample_size"]
    return {
        "hidden_states": torch.randn(1, config["in_channels"], config["video_length"], side, side),
        "encoder_hidden_states": text(full, 120, config["caption_channels"]),
        "timestep": timestep(500),
        "enable_temporal_attentions": True,
    }


def minimax_h3(config: Config, full: bool) -> Inputs:
    """MiniMax H3: text, two channels of sound and video in one sequence, told apart by index."""
    words, sound, frames, height, width = (512, 400, 31, 22, 40) if full else (5, 4, 2, 2, 2)
    pixels = frames * height * width
    patch = math.prod(config["patch_size"]) * config["in_channels"]
    order = torch.arange(words + sound + pixels)
    audible = (order >= words) & (order < words + sound)
    return {
        "hidden_states": torch.randn(1, pixels, patch),
        "audio_hidden_states": torch.randn(1, sound, config["audio_in_channels"]),
        "encoder_hidden_states": torch.randn(1, words, config["text_dim"]),
        "timestep": torch.cat([timestep(400.0), timestep()]),
        "timestep_indices": (~audible).long(),
        "token_tags": (order < words).long() + 2 * audible.long(),
        "position_ids": torch.rand(words + sound + pixels, 3, dtype=torch.float64),
        "video_indices": order[words + sound :],
        "audio_indices": order[words : words + sound],
        "text_indices": order[:words],
    }


def mochi(config: Config, full: bool) -> Inputs:
    """Mochi: 19 frames of 480x848."""
    words = text(full, 256, config["text_embed_dim"])
    return video_and_text(config, full, (4, 60, 106), words) | {
        "encoder_attention_mask": text_mask(full, 256).bool()
    }


def motif(config: Config, full: bool) -> Inputs:
    """Motif Video: 121 frames of 736x1280; latent, condition and mask in channels."""
    words = text(full, 512, config["text_embed_dim"])
    mask = {"encoder_attention_mask": text_mask(full, 512)}
    return video_and_text(config, full, (31, 92, 160), words) | mask


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "AllegroTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "cross_attention_dim": 24,
            "sample_height": 4,
            "sample_width": 4,
            "sample_frames": 2,
            "caption_channels": 16,
        },
        allegro,
    ),
    Recipe(
        "EasyAnimateTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "num_layers": 2,
            "mmdit_layers": 2,
            "time_embed_dim": 16,
            "add_norm_text_encoder": True,
            "text_embed_dim": 16,
        },
        easyanimate,
        {"in_channels": 16, "out_channels": 16, "patch_size": 2, "add_norm_text_encoder": True},
    ),
    Recipe(
        "LatteTransformer3DModel",
        {
            **LATTE,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "cross_attention_dim": 24,
            "sample_size": 4,
            "caption_channels": 16,
            "video_length": 2,
        },
        latte,
        LATTE,
    ),
    Recipe(
        "MiniMaxH3Transformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "hidden_size": 24,
            "num_layers": 2,
            "num_refiner_layers": 2,
            "ffn_dim": 48,
            "in_channels": 4,
            "audio_in_channels": 6,
            "text_dim": 16,
            "freq_dim": 16,
            "time_embed_hidden_dim": 24,
            "time_embed_dim": 12,
            "rope_freq_dim": 2,
        },
        minimax_h3,
    ),
    Recipe(
        "MochiTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "pooled_projection_dim": 16,
            "in_channels": 4,
            "text_embed_dim": 16,
            "time_embed_dim": 16,
            "max_sequence_length": 5,
        },
        mochi,
    ),
    Recipe(
        "MotifVideoTransformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "text_embed_dim": 16,
            "rope_axes_dim": (4, 6, 6),
        },
        motif,
    ),
)
