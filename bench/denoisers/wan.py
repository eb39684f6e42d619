"""Wan, and the video transformers that are built on it."""

import diffusers
import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text, timestep
from bench.denoisers.video_inputs import video, video_and_text

WAN_TINY: Config = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}

IMAGE: Config = {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 24}

IMAGE_14B: Config = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}


def wan(config: Config, full: bool) -> Inputs:
    """Wan 2.1 text-to-video: 81 frames of 480x832."""
    return video_and_text(config, full, (21, 60, 104), text(full, 512, config["text_dim"]))


def wan_vace(config: Config, full: bool) -> Inputs:
    return wan(config, full) | {
        "control_hidden_states": video(config["vace_in_channels"], full, 21, 60, 104),
        "control_hidden_states_scale": torch.ones(len(config["vace_layers"])),
    }


def skyreels(config: Config, full: bool) -> Inputs:
    """SkyReels V2 text-to-video: 97 frames of 544x960."""
    return video_and_text(config, full, (25, 68, 120), text(full, 512, config["text_dim"]))


def image_to_video(config: Config, full: bool) -> Inputs:
    """Wan's image-to-video call: latent, condition and mask in channels; CLIP's 257 tokens."""
    image = text(full, 257, config["image_dim"], few=3)
    return wan(config, full) | {"encoder_hidden_states_image": image}


def helios(config: Config, full: bool) -> Inputs:
    """Helios: the next 9 latent frames of 384x640, after 16 + 2 + 2 frames of history."""
    frames, height, width = (9, 48, 80) if full else (2, 4, 4)
    sizes = {"long": 16 if full else 4, "mid": 2, "short": 2}
    inputs = wan(config, full)
    inputs["hidden_states"] = torch.randn(1, config["in_channels"], frames, height, width)
    start = 1
    for name, size in sizes.items():
        inputs[f"latents_history_{name}"] = torch.randn(
            1, config["in_channels"], size, height, width
        )
        fresh = size - (name == "short")
        indices = torch.arange(start, start + fresh)
        if name == "short":
            indices = torch.cat([torch.zeros(1, dtype=torch.int64), indices])
        inputs[f"indices_latents_history_{name}"] = indices[None]
        start += fresh
    return inputs | {"indices_hidden_states": torch.arange(start, start + frames)[None]}


def wan_animate(config: Config, full: bool) -> Inputs:
    """Wan Animate: 77 frames of 720x1280 after a reference; pose as latent, face as pixels."""
    frames, height, width = (20, 90, 160) if full else (2, 4, 4)
    face = (3, 4 * frames - 3, config["motion_encoder_size"], config["motion_encoder_size"])
    return image_to_video(config, full) | {
        "hidden_states": torch.randn(1, config["in_channels"], frames + 1, height, width),
        "pose_hidden_states": torch.randn(1, config["latent_channels"], frames, height, width),
        "face_pixel_values": torch.randn(1, *face),
    }


def wan_animate2(config: Config, full: bool) -> Inputs:
    """Wan Animate 2: lists of unbatched latents; the driving video's keys and values cached."""
    frames, height, width = (21, 60, 104) if full else (2, 4, 4)
    channels, patches = config["out_dim"], (frames, height // 2, width // 2)
    tokens = patches[1] * patches[2]
    heads = config["num_heads"]
    cache = diffusers.models.transformers.transformer_wan_animate_2.WanAnimate2KVCache(
        config["num_layers"]
    )
    for layer in cache.layer_caches:
        layer.store(*torch.randn(2, 1, frames * tokens, heads, config["dim"] // heads))
    return {
        "hidden_states": [torch.randn(channels, frames + 1, height, width)],
        "timestep": timestep(),
        "encoder_hidden_states": [text(full, 128, config["text_dim"])[0]],
        "condition_latents": [torch.randn(config["in_dim"] - channels, frames + 1, height, width)],
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "seq_len": (frames + 1) * tokens,
        "encoder_hidden_states_image": text(full, 257, 1280, few=3),
        "reference_grid_sizes": torch.tensor([patches]),
        "origin_len": 4 * frames - 3,
        "origin_area": [8 * height, 8 * width],
        "is_uncondtion": False,
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe("WanTransformer3DModel", WAN_TINY, wan),
    Recipe(
        "WanVACETransformer3DModel",
        {**WAN_TINY, "num_layers": 4, "vace_layers": [0, 1, 2, 3], "vace_in_channels": 24},
        wan_vace,
    ),
    Recipe("SkyReelsV2Transformer3DModel", WAN_TINY, skyreels),
    Recipe("ChronoEditTransformer3DModel", {**WAN_TINY, **IMAGE}, image_to_video, IMAGE_14B),
    Recipe(
        "HeliosTransformer3DModel",
        {
            **{key: value for key, value in WAN_TINY.items() if key != "rope_max_seq_len"},
            "rope_dim": (4, 4, 4),
        },
        helios,
    ),
    Recipe(
        "WanAnimateTransformer3DModel",
        {
            **WAN_TINY,
            "num_layers": 4,  # every second one has a face adapter
            "in_channels": 12,
            "latent_channels": 4,
            "image_dim": 16,
            "added_kv_proj_dim": 24,
            "motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8},
            "motion_encoder_size": 16,
            "motion_style_dim": 8,
            "motion_dim": 4,
            "motion_encoder_dim": 8,
            "face_encoder_hidden_dim": 8,
            "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
        wan_animate,
        {"added_kv_proj_dim": 5120},
    ),
    Recipe(
        "WanAnimate2Transformer3DModel",
        {
            "text_len": 8,
            "in_dim": 12,
            "dim": 24,
            "ffn_dim": 32,
            "freq_dim": 16,
            "text_dim": 16,
            "out_dim": 4,
            "num_heads": 2,
            "num_layers": 2,
        },
        wan_animate2,
    ),
)
