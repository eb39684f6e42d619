"""A diffusion transformer in plain PyTorch, which no library contains."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

TOKENS, CHANNELS, WIDTH, WORDS = 16, 4, 16, 5


class Block(nn.Module):
    """Self-attention, attention to the text, and an MLP, each gated by the timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(3))
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.query, self.key_value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(emb)[:, None].chunk(6, -1)
        q, k, v = self.qkv(self.norms[0](x) * (1 + scale) + shift).chunk(3, -1)
        x = x + gate * self.out(scaled_dot_product_attention(q, k, v))
        k, v = self.key_value(text).chunk(2, -1)
        x = x + scaled_dot_product_attention(self.query(self.norms[1](x)), k, v)
        return x + gate2 * self.mlp(self.norms[2](x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """``forward(sample [B, 16, 4], timestep [B] or [], text [B, 5, 16])`` -> ``[B, 16, 4]``."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.time = nn.Linear(CHANNELS, WIDTH), nn.Linear(1, WIDTH)
        self.position = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        # Any: the items of a module list are modules of no kind for mypy.
        self.layers: Any = nn.ModuleList(Block() for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CHANNELS)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        emb = self.time(timestep.reshape(-1, 1).to(sample.dtype) / 1000).expand(sample.shape[0], -1)
        x = self.embed(sample) + self.position
        for layer in self.layers:
            x = layer(x, emb, text)
        return self.head(self.norm(x) * (1 + emb[:, None]))


def dit(depth: int = 4) -> DiT:
    return DiT(depth).eval()


def dit_inputs(batch: int = 2, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, TOKENS, CHANNELS, generator=generator),
        "text": torch.randn(batch, WORDS, WIDTH, generator=generator),
    }


def denoised(model: nn.Module, steps: int = 7, seed: int = 0, **inputs: Any) -> Tensor:
    """Run a loop over elements of one tensor of timesteps."""
    given = dit_inputs(seed=seed) | inputs
    latent, timesteps = given.pop("sample"), torch.linspace(900, 100, steps)
    with torch.no_grad():
        for t in timesteps:
            latent = latent - 0.1 * model(latent, t, **given)
    return latent
