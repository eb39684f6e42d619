"""Tests models that get functions with a closure, such as the mask of flex attention."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

import fxcache
from tests.engines import optimized_engine
from tests.loops import sample as _sample  # noqa: F401

WIDTH = 16


class Masked(nn.Module):
    """``forward(sample [1, 128, 16], timestep, mask)``."""

    def __init__(self, attend: Callable[[Tensor, SimpleNamespace], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attend = attend

    def forward(self, sample: Tensor, timestep: Tensor, mask: SimpleNamespace) -> Tensor:
        x = sample + timestep / 1000
        for block in self.blocks:
            x = x + self.attend(block(x), mask)
        return x
