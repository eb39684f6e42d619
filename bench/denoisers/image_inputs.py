"""Common inputs of image denoisers: latents, prompts and coordinates."""

import torch
from torch import Tensor

from bench.denoisers.recipe import Config, Inputs
from bench.denoisers.tensors import grid, text, timestep


def latent_side(config: Config, full: bool, native: int = 128, tiny: int = 8) -> int:
    """Return the height and width of the latent, from the config if it has them."""
    return (config.get("sample_size") or native) if full else tiny


def packed_side(config: Config, full: bool) -> int:
    """Return the height and width in 2×2 patches."""
    return latent_side(config, full, native=64, tiny=4)


def latents(config: Config, side: int) -> Tensor:
    return torch.randn(1, config["in_channels"], side, side)


def packed(config: Config, side: int) -> Tensor:
    """Return a square latent as a sequence of ``side * side`` tokens."""
    return torch.randn(1, side * side, config["in_channels"])


def image_and_text(config: Config, full: bool, words: Tensor, time: float = 500.0) -> Inputs:
    """Return the inputs of most image transformers."""
    return {
        "hidden_states": latents(config, latent_side(config, full)),
        "timestep": timestep(time),
        "encoder_hidden_states": words,
    }


def packed_and_text(config: Config, full: bool, words: Tensor) -> Inputs:
    """Return inputs with a packed latent, and timesteps from 0 to 1."""
    return {
        "hidden_states": packed(config, packed_side(config, full)),
        "timestep": timestep(0.5),
        "encoder_hidden_states": words,
    }


def placed_and_text(config: Config, full: bool, tokens: int) -> Inputs:
    """Return inputs with a packed latent, and the coordinates of every token."""
    side, words = packed_side(config, full), text(full, tokens, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "txt_ids": torch.zeros(words.shape[1], 3),
        "img_ids": grid(1, side, side).float(),
    }
