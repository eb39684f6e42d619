"""Tests attention layers for which torch has a fast path outside of traces."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import fxcache

FAST_PATH = r"fast path, which no graph contains: blocks\.0\.attention.*set_fastpath_enabled"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.attention(h, h, h, need_weights=False)[0]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        for block in self.blocks:
            sample = block(sample + timestep / 1000)
        return sample


def call(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.ones(2, 12, 16).cumsum(1) / 9, torch.tensor(500.0))
    return found


def test_the_fast_path_is_reported():
    model = Model().eval()
    plain = call(model)
    with pytest.warns(fxcache.FxcacheWarning, match=FAST_PATH):
        torch.testing.assert_close(call(fxcache.optimize(model, fxcache.Uniform(1))), plain)


def test_without_the_fast_path_the_bits_are_equal():
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model = Model().eval()
        plain = call(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(call(fxcache.optimize(model, fxcache.Uniform(1))), plain)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
