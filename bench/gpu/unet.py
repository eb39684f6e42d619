"""A U-Net in plain PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from bench.gpu.layers import LATENT_CHANNELS, Size, TimestepEmbedding, attention


class ResnetBlock(nn.Module):
    def __init__(self, enter: int, leave: int, width: int):
        super().__init__()
        self.first, self.second = nn.GroupNorm(4, enter), nn.GroupNorm(4, leave)
        self.enter = nn.Conv2d(enter, leave, 3, padding=1)
        self.leave = nn.Conv2d(leave, leave, 3, padding=1)
        self.time, self.shortcut = nn.Linear(width, leave), nn.Conv2d(enter, leave, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.enter(silu(self.first(x))) + self.time(embedded)[..., None, None]
        return self.shortcut(x) + self.leave(silu(self.second(h)))


class CrossAttention(nn.Module):
    def __init__(self, channels: int, width: int, heads: int):
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(4, channels), heads
        self.query, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key_value = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        key, value = self.key_value(text).chunk(2, -1)
        mixed = attention(self.query(tokens), key, value, self.heads)
        return x + self.out(mixed).transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(nn.Module):
    """Two levels with skip connections. ``sample``: ``[B, 4, side, side]``."""

    def __init__(self, size: Size):
        super().__init__()
        width, wide = size.width // 2, size.width
        self.time, self.enter = (
            TimestepEmbedding(wide),
            nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1),
        )
        self.down = nn.ModuleList([ResnetBlock(width, width, wide), ResnetBlock(width, wide, wide)])
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.attend = CrossAttention(wide, wide, size.heads)
        self.middle = ResnetBlock(wide, wide, wide)
        self.up = nn.ModuleList(
            [ResnetBlock(2 * wide, wide, wide), ResnetBlock(wide + width, width, wide)]
        )
        self.norm, self.leave = (
            nn.GroupNorm(4, width),
            nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1),
        )

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        embedded = silu(self.time(timestep))
        high = self.down[0](self.enter(sample), embedded)
        low = self.attend(self.down[1](self.shrink(high), embedded), text)
        deep = self.middle(low, embedded)
        deep = self.attend(self.up[0](torch.cat([deep, low], dim=1), embedded), text)
        deep = interpolate(deep, scale_factor=2.0)
        x = self.up[1](torch.cat([deep, high], dim=1), embedded)
        return self.leave(silu(self.norm(x)))
