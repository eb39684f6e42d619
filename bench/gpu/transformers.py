"""Transformers in plain PyTorch with the structure of DiT and of FLUX."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from bench.gpu.layers import LATENT_CHANNELS, MLP, Size, TimestepEmbedding, angles_of, attention


class DiTBlock(nn.Module):
    """Attention and an MLP, which the timestep scales, shifts and gates (adaLN)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.first, self.second = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, embedded: Tensor, text: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(embedded)[:, None].chunk(6, -1)
        query, key, value = self.qkv(self.first(x) * (1 + scale) + shift).chunk(3, -1)
        x = x + gate * self.out(attention(query, key, value, self.heads))
        key, value = self.key_value(text).chunk(2, -1)
        x = x + attention(self.query(x), key, value, self.heads)
        return x + gate2 * self.mlp(self.second(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """``sample``: ``[B, side², 4]``."""

    def __init__(self, size: Size):
        super().__init__()
        self.embed, self.time = (
            nn.Linear(LATENT_CHANNELS, size.width),
            TimestepEmbedding(size.width),
        )
        self.position = nn.Parameter(torch.randn(1, size.side**2, size.width))
        self.blocks = nn.ModuleList(DiTBlock(size.width, size.heads) for _ in range(size.blocks))
        self.norm, self.head = nn.LayerNorm(size.width), nn.Linear(size.width, LATENT_CHANNELS)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        embedded = silu(self.time(timestep))
        x = self.embed(sample) + self.position
        for block in self.blocks:
            x = block(x, embedded, text)
        return self.head(self.norm(x))


class FluxBlock(nn.Module):
    """Joint attention over text and image, which have separate weights."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.ModuleList(nn.Linear(width, 6 * width) for _ in range(2))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.mlp = nn.ModuleList(MLP(width) for _ in range(2))

    def forward(
        self, text: Tensor, image: Tensor, embedded: Tensor, rotary: Tensor
    ) -> tuple[Tensor, Tensor]:
        streams = (text, image)
        changes = [m(embedded)[:, None].chunk(6, -1) for m in self.modulation]
        normed = [
            self.norm(x) * (1 + change[1]) + change[0]
            for x, change in zip(streams, changes, strict=True)
        ]
        qkv = torch.cat([m(x) for m, x in zip(self.qkv, normed, strict=True)], dim=1)
        query, key, value = qkv.chunk(3, -1)
        mixed = attention(rotated(query, rotary), rotated(key, rotary), value, self.heads)
        words = text.shape[1]
        found = []
        for i, part in enumerate((mixed[:, :words], mixed[:, words:])):
            _, _, gate, shift, scale, gate2 = changes[i]
            x = streams[i] + gate * self.out[i](part)
            found.append(x + gate2 * self.mlp[i](self.norm(x) * (1 + scale) + shift))
        return found[0], found[1]


class FluxSingleBlock(nn.Module):
    """Attention and an MLP in parallel, over text and image as one sequence."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation, self.enter = nn.Linear(width, 3 * width), nn.Linear(width, 7 * width)
        self.act, self.out = nn.GELU("tanh"), nn.Linear(5 * width, width)

    def forward(self, x: Tensor, embedded: Tensor, rotary: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(embedded)[:, None].chunk(3, -1)
        entered = self.enter(self.norm(x) * (1 + scale) + shift)
        width = x.shape[-1]
        query, key, value, hidden = entered.split([width, width, width, 4 * width], -1)
        mixed = attention(rotated(query, rotary), rotated(key, rotary), value, self.heads)
        return x + gate * self.out(torch.cat([mixed, self.act(hidden)], dim=-1))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding of ``x`` ``[B, T, C]`` by ``angles`` ``[T, C / 2]``."""
    even, odd = x.chunk(2, -1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


class Flux(nn.Module):
    """``sample``: ``[B, side², 4]``."""

    def __init__(self, size: Size):
        super().__init__()
        width, heads, half = size.width, size.heads, size.blocks // 2
        self.embed, self.time = nn.Linear(LATENT_CHANNELS, width), TimestepEmbedding(width)
        self.read = nn.Linear(width, width)
        self.width = width
        self.double_blocks = nn.ModuleList(FluxBlock(width, heads) for _ in range(half))
        self.single_blocks = nn.ModuleList(FluxSingleBlock(width, heads) for _ in range(half))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, LATENT_CHANNELS)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        embedded = silu(self.time(timestep) + text.mean(1))
        words, tokens = text.shape[1], text.shape[1] + sample.shape[1]
        rotary = angles_of(torch.arange(tokens, device=sample.device), self.width)
        text, image = self.read(text), self.embed(sample)
        for block in self.double_blocks:
            text, image = block(text, image, embedded, rotary)
        x = torch.cat([text, image], dim=1)
        for block in self.single_blocks:
            x = block(x, embedded, rotary)
        return self.head(self.norm(x[:, words:]))
