"""Tests that a capture leaves no fake tensor in classes of other files, which models share."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache._torch import is_fake
from tests.capture import tables

STEPS = torch.linspace(900.0, 100.0, 3)


class Model(nn.Module):
    def __init__(self, table: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.deep, self.last = (nn.Linear(8, 8) for _ in range(3))
        self.table = table

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        hidden = self.first(sample) * self.table.of(sample.shape[-1]) + timestep / 1000
        found: Tensor = self.last(hidden + self.deep(hidden))
        return found


class Imported(Model):
    """Names the class in its code."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return super().forward(sample, timestep) + tables.Angles.of(8)


@pytest.mark.parametrize("table", [tables.Angles, tables.Last])
@pytest.mark.parametrize("kind", [Model, Imported])
@torch.no_grad()
def test_a_model_beside_the_captured_one_gets_real_tensors(kind, table, monkeypatch):
    monkeypatch.setattr(tables.Angles, "made", {})
    monkeypatch.setattr(tables.Last, "made", None)
    plain = kind(table).eval()
    model = fxcache.optimize(kind(table).eval(), fxcache.Uniform(1), cut="deep")
    sample = torch.randn(2, 8)
    for step in STEPS:
        found, expected = model(sample, step), plain(sample, step)
        assert not is_fake(expected)
        assert torch.equal(found, expected)
