"""A small transformer written in plain PyTorch, in the ways that reports describe."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from bench.pipelines.parts import noise
from bench.seeding import seeded

WIDTH, CHANNELS, TOKENS, WORDS, STEPS = 16, 4, 16, 5, 7


def normed(x: Tensor) -> Tensor:
    return layer_norm(x, (WIDTH,))


class Block(nn.Module):
    """Attention to the picture and the text, and an MLP, gated by the timestep.

    ``in_place`` writes the sums to the buffer of the block's input, as fused kernels do.
    """

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.modulation = nn.Linear(WIDTH, 3 * WIDTH)
        self.qkv, self.key_value = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(embedding)[:, None].chunk(3, -1)
        query, key, value = self.qkv(normed(x) * (1 + scale) + shift).chunk(3, -1)
        words, meanings = self.key_value(text).chunk(2, -1)
        attended = scaled_dot_product_attention(
            query, torch.cat([key, words], 1), torch.cat([value, meanings], 1)
        )
        x = self.added(x, gate * attended)
        return self.added(x, self.mlp(normed(x)))

    def added(self, x: Tensor, change: Tensor) -> Tensor:
        return x.add_(change) if self.in_place else x + change


class Denoiser(nn.Module):
    """``forward(sample [B, 16, 4], timestep [], text [B, 5, 16])`` -> ``[B, 16, 4]``."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.embed, self.time = nn.Linear(CHANNELS, WIDTH), nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(Block(in_place) for _ in range(4))
        self.head = nn.Linear(WIDTH, CHANNELS)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        embedding = self.time(timestep.reshape(-1, 1) / 1000).expand(sample.shape[0], -1)
        x = self.embed(sample)
        for block in self.blocks:
            x = block(x, embedding, text)
        return self.head(normed(x))


class GuidedInside(Denoiser):
    """Computes both halves of the guidance in its own ``forward``, and returns the guided value."""

    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, text: Tensor, negative: Tensor, scale: float
    ) -> Tensor:
        wanted = super().forward(sample, timestep, text)
        unwanted = super().forward(sample, timestep, negative)
        return unwanted + scale * (wanted - unwanted)


def denoiser(kind: Any = Denoiser, **config: Any) -> Any:
    return seeded(lambda: kind(**config))


def text(batch: int = 1, seed: int = 1) -> Tensor:
    return noise(batch, WORDS, WIDTH, seed=seed)


@torch.no_grad()
def denoised(model: Any, latent: Tensor | None = None, **inputs: Any) -> Tensor:
    """Sample in a loop over the elements of one tensor of timesteps."""
    latent = noise(1, TOKENS, CHANNELS) if latent is None else latent
    for timestep in torch.linspace(900, 100, STEPS):
        latent = latent - 0.1 * model(latent, timestep, **inputs)
    return latent
