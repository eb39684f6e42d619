"""The layers of the denoisers in plain PyTorch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Size:
    """The size of a denoiser. ``side`` is that of the square latent, ``words`` are text tokens."""

    width: int
    blocks: int
    heads: int
    side: int
    words: int


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Compute attention: ``[B, T, C]`` and two ``[B, S, C]`` -> ``[B, T, C]``."""
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    return scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def angles_of(positions: Tensor, width: int) -> Tensor:
    """Multiply positions ``[T]`` by decreasing rates, in float32: ``[T, width / 2]``."""
    rates = torch.logspace(0, -4, width // 2, device=positions.device)
    return positions.float()[:, None] * rates


class TimestepEmbedding(nn.Module):
    """Sines and cosines of ``B`` timesteps or of one, and an MLP: ``[B]`` -> ``[B, width]``."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        angles = angles_of(timestep.reshape(-1), self.width)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: Tensor = self.layers(waves.to(timestep.dtype))
        return embedded


class MLP(nn.Sequential):
    def __init__(self, width: int):
        wide = 4 * width
        super().__init__(nn.Linear(width, wide), nn.GELU("tanh"), nn.Linear(wide, width))
