"""Diffusion transformers with submodules that torch.export cannot trace."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from tests.plain import WIDTH, DiT, dit

EXPERTS = 3


class Routed(nn.Module):
    """A mixture of experts. NumPy decides which tokens each expert gets.

    Attributes:
        num_calls: How often it was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS))
        self.num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        tokens = x.reshape(-1, WIDTH)
        expert = self.gate(tokens).argmax(-1)
        order = expert.argsort(stable=True)
        ends = np.cumsum(expert.bincount(minlength=EXPERTS).numpy())
        result, start = torch.zeros_like(tokens), 0
        for layer, end in zip(self.experts, ends, strict=True):
            rows = order[start:end]
            result[rows] = layer(tokens[rows])
            start = int(end)
        return result.view(x.shape)


class Branching(nn.Module):
    """A layer whose values decide whether it doubles its result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return 2 * x if x.mean() > 0 else x


class Halving(nn.Module):
    """A layer that repeats until its result is small."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        while x.abs().max() > 0.5:
            x = gelu(x) / 2
        return x


class Rounds(nn.Module):
    """A layer that runs as often as its input says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(1 + int(x.abs().sum().item()) % 3):
            x = self.linear(x)
        return x


def with_mlps(kind: type[nn.Module], depth: int = 2) -> DiT:
    """Return a transformer whose MLPs are replaced by submodules of a class."""
    model = dit(depth)
    for layer in model.layers:
        layer.mlp = kind()
    return model.eval()


def routed_dit(depth: int = 2) -> DiT:
    """Return a transformer with a mixture of experts in each layer."""
    return with_mlps(Routed, depth)


def calls_of(model: Any) -> list[int]:
    """Return how often each mixture of experts was called."""
    return [layer.mlp.num_calls for layer in model.layers]
