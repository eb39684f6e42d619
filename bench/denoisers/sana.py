"""SANA: images, videos and worlds."""

import diffusers
import torch
from torch import Tensor

from bench.denoisers.image_inputs import image_and_text
from bench.denoisers.ltx import LTX2_TINY
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, rotary, text, text_mask
from bench.denoisers.video_inputs import video_and_text


def sana(config: Config, full: bool) -> Inputs:
    words = text(full, 300, config["caption_channels"])
    return image_and_text(config, full, words) | {"encoder_attention_mask": prompt_mask(full, 300)}


def sana_video(config: Config, full: bool) -> Inputs:
    """SANA-Video: 81 frames of 480x832."""
    words = text(full, 300, config["caption_channels"])
    mask = {"encoder_attention_mask": text_mask(full, 300)}
    return video_and_text(config, full, (21, 60, 104), words) | mask


def sana_wm(config: Config, full: bool) -> Inputs:
    """SANA-WM: 161 frames of 704x1280, a pose and a camera for every latent frame."""
    frames, height, width = (21, 22, 40) if full else (3, 4, 4)
    pose = torch.eye(4).flatten().expand(1, frames, 16)
    camera = torch.full((1, frames, 4), height / 2)
    rays = (config["chunk_plucker_channels"], frames, height, width)
    return {
        "hidden_states": torch.randn(1, config["in_channels"], frames, height, width),
        "timestep": torch.full((1, 1, frames), 500.0),
        "encoder_hidden_states": text(full, 300, config["caption_channels"]).unsqueeze(1),
        "mask": text_mask(full, 300),
        "data_info": {"img_hw": torch.full((1, 2), 32.0 * height)},
        "camera_conditions": torch.cat([pose, camera], dim=-1),
        "chunk_plucker": torch.randn(1, *rays),
    }


def sana_wm_refiner(config: Config, full: bool) -> Inputs:
    """SANA-WM's refiner: three latent frames of 704x1280; one first and ten past ones cached."""
    tokens = 880 if full else 4
    inner = config["num_attention_heads"] * config["attention_head_dim"]

    def table(frames: int) -> tuple[Tensor, Tensor]:
        cos, sin = rotary(frames * tokens, inner)
        return cos[None], sin[None]

    cache = diffusers.models.transformers.transformer_sana_wm_refiner.SanaWMRefinerKVCache(
        config["num_layers"]
    )
    cache.sink_pe = table(1)
    for layer in cache.layer_caches:
        layer.store_sink(*torch.randn(2, 1, tokens, inner))
        layer.store_history(*torch.randn(2, 1, 10 * tokens, inner))
    return {
        "hidden_states": torch.randn(1, 3 * tokens, config["in_channels"]),
        "encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "timestep": torch.full((1, 3 * tokens), 900.0),
        "video_rotary_emb": table(3),
        "encoder_attention_mask": text_mask(full, 1024),
        "kv_cache": cache,
        "kv_cache_mode": "inject",
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "SanaTransformer2DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 24,
            "sample_size": 8,
        },
        sana,
    ),
    Recipe(
        "SanaVideoTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 12,
            "cross_attention_dim": 24,
            "caption_channels": 16,
            "sample_size": 4,
            "rope_max_seq_len": 32,
        },
        sana_video,
    ),
    Recipe(
        "SanaWMTransformer3DModel",
        {
            "in_channels": 8,
            "num_layers": 4,
            "hidden_size": 48,
            "num_attention_heads": 2,
            "linear_head_dim": 24,
            "chunk_plucker_channels": 6,
            "caption_channels": 16,
        },
        sana_wm,
    ),
    Recipe("SanaWMLTX2RefinerTransformer3DModel", LTX2_TINY, sana_wm_refiner),
)
