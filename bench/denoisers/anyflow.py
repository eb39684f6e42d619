"""AnyFlow, which is built on Wan."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.wan import WAN_TINY, wan


def wan_frames(config: Config, full: bool) -> Inputs:
    """AnyFlow: frames before channels, two timesteps for every frame."""
    call = wan(config, full)
    latent = call["hidden_states"].transpose(1, 2)
    return call | {
        "hidden_states": latent,
        "timestep": torch.full(latent.shape[:2], 500.0),
        "r_timestep": torch.full(latent.shape[:2], 400.0),
    }


def anyflow_far(config: Config, full: bool) -> Inputs:
    """AnyFlow, frame by frame: the fourth chunk of a video, the first three in the cache."""
    chunks = list(config["chunk_partition"][:4])
    height, width = (60, 104) if full else (4, 4)
    batch, frames = 1, chunks[-1]
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    tokens = height * width // 4
    long = config["full_chunk_limit"] * max(config["chunk_partition"])
    short = len(config["chunk_partition"]) - config["full_chunk_limit"] + 1
    far = short * max(config["chunk_partition"]) * (height // 4) * (width // 4)
    return wan(config, full) | {
        "hidden_states": torch.randn(batch, frames, config["in_channels"], height, width),
        "timestep": torch.full((batch, frames), 500.0),
        "r_timestep": torch.full((batch, frames), 400.0),
        "chunk_partition": chunks,
        "kv_cache": {
            layer: {
                "full_cache": torch.randn(2, batch, heads, long * tokens, head_dim),
                "compressed_cache": torch.randn(2, batch, heads, far, head_dim),
            }
            for layer in range(config["num_layers"])
        },
        "kv_cache_flag": {"num_cached_chunks": 3, "is_cache_step": False},
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe("AnyFlowTransformer3DModel", WAN_TINY, wan_frames),
    Recipe(
        "AnyFlowFARTransformer3DModel",
        {**WAN_TINY, "chunk_partition": (1, 2, 2, 2, 1)},
        anyflow_far,
    ),
)
