"""Common inputs of video denoisers."""

import torch
from torch import Tensor

from bench.denoisers.recipe import Config, Inputs
from bench.denoisers.tensors import timestep


def video(channels: int, full: bool, frames: int, height: int, width: int) -> Tensor:
    """Return a latent video; a small one has 2 frames of 4x4."""
    return torch.randn(1, channels, *((frames, height, width) if full else (2, 4, 4)))


def video_and_text(
    config: Config, full: bool, clip: tuple[int, int, int], words: Tensor, time: float = 500.0
) -> Inputs:
    """Return the inputs of most video transformers, for a latent of the shape ``clip``."""
    return {
        "hidden_states": video(config["in_channels"], full, *clip),
        "timestep": timestep(time),
        "encoder_hidden_states": words,
    }
