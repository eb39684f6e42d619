"""A small causal video transformer, which draws a video chunk by chunk from a rolling cache."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

TOKENS, CHANNELS, WIDTH, DEPTH = 8, 4, 16, 3  # of one chunk
SINKS, SLOTS = 2, 26  # tokens of the first chunk that stay; tokens in the cache


@dataclass
class Layer:
    """The keys and values of one block: [B, slots, WIDTH] each."""

    keys: Tensor
    values: Tensor


class RollingCache:
    """The keys and values of the chunks so far, after ``filled`` slots of zeros."""

    def __init__(self, filled: int = 0) -> None:
        slots = torch.zeros(1, filled, WIDTH)
        self.layers = [Layer(slots.clone(), slots.clone()) for _ in range(DEPTH)]

    def add(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Append a chunk. If the slots are full, drop the oldest tokens that are no sinks."""
        layer = self.layers[index]
        layer.keys, layer.values = rolled(layer.keys, keys), rolled(layer.values, values)


def rolled(slots: Tensor, new: Tensor) -> Tensor:
    """Return the slots with ``new`` at the end, and at most ``SLOTS`` of them."""
    joined = torch.cat([slots, new], 1)
    excess = max(0, joined.shape[1] - SLOTS)
    return torch.cat([joined[:, :SINKS], joined[:, SINKS + excess :]], 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.modulation = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor, emb: Tensor, cache: Any, index: int, commit: bool) -> Tensor:
        scale, gate = self.modulation(emb)[:, None].chunk(2, -1)
        query, keys, values = self.qkv(self.norm(x) * (1 + scale)).chunk(3, -1)
        past = cache.layers[index]
        seen = torch.cat([past.keys, keys], 1), torch.cat([past.values, values], 1)
        if commit:
            cache.add(index, keys, values)
        x = x + gate * self.out(scaled_dot_product_attention(query, *seen))
        return x + self.mlp(x)


class CausalVideo(nn.Module):
    """Denoises a chunk [1, 8, 4]. It sees the chunks in the cache, and itself.

    With ``commit``, the call adds its own keys and values to the cache. Ca2-VDM (arXiv 2411.16375)
    and Self-Forcing (arXiv 2506.08009) make such a call at the end of each chunk.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.time = nn.Linear(CHANNELS, WIDTH), nn.Linear(1, WIDTH)
        self.blocks: Any = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, CHANNELS)

    def forward(
        self, sample: Tensor, timestep: Tensor, places: Tensor, cache: Any, commit: bool = False
    ) -> Tensor:
        emb = self.time(timestep.reshape(-1, 1).to(sample.dtype) / 1000)
        x = self.embed(sample) + torch.sin(places[None, :, None] / 10)
        for index, block in enumerate(self.blocks):
            x = block(x, emb, cache, index, commit)
        return self.head(x)


@torch.no_grad()
def draw_chunk(
    model: nn.Module, cache: Any, chunk: int, steps: int = 7, commit: Any = True
) -> Tensor:
    """Draw the chunk number ``chunk`` [1, 8, 4], and commit it to the cache.

    Args:
        model: The denoiser.
        cache: The cache of the chunks before.
        chunk: The number of the chunk.
        steps: The number of denoising steps.
        commit: What the committing call passes as ``commit``; the others pass its opposite.
    """
    places = torch.arange(TOKENS) + chunk * TOKENS
    latent = torch.randn(1, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(chunk))
    for timestep in torch.linspace(900, 100, steps):
        latent = latent - 0.1 * model(latent, timestep, places, cache)
    model(latent, torch.zeros(()), places, cache, commit=commit)
    return latent


def draw_video(model: nn.Module, cache: Any, chunks: int = 3) -> Tensor:
    """Draw chunks one after the other: [1, chunks * 8, 4]."""
    return torch.cat([draw_chunk(model, cache, chunk) for chunk in range(chunks)], 1)


def values_of(cache: Any) -> list[Tensor]:
    """Return the keys and values in the cache."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
