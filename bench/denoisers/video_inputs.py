"""What the pipelines of many video denoisers pass."""

import torch
from torch import Tensor

from bench.denoisers.recipe import Config, Inputs
from bench.denoisers.tensors import timestep


def video(channels: int, full: bool, frames: int, height: int, width: int) -> Tensor:
    """A latent video; small: 2 frames of 4x4."""
    return torch.randn(1, channels, *((frames, height, width) if full else (2, 4, 4)))


def video_and_text(
    config: Config, full: bool, clip: tuple[int, int, int], words: Tensor, time: float = 500.0
) -> Inputs:
    """What most video transformers take; ``clip``: frames, height and width of the latent."""
    return {
        "hidden_states": video(config["in_channels"], full, *clip),
        "timestep": timestep(time),
        "encoder_hidden_states": words,
    }
