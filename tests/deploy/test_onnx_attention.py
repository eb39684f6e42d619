"""Tests ONNX exports of attention without heads, which torch.onnx does not translate by itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import fxcache
from tests.deploy.test_onnx import by_onnx, error
from tests.deploy.test_round_trip import STEPS, denoised
from tests.plain import TOKENS, dit

pytestmark = pytest.mark.usefixtures("shared_captures")
MASK = torch.arange(TOKENS)[:, None] >= torch.arange(TOKENS)
OPTIONS: dict[str, dict[str, Any]] = {
    "no mask": {},
    "a mask": {"attn_mask": MASK},
    "a mask for each picture": {"attn_mask": MASK.expand(2, -1, -1)},
    "numbers": {"attn_mask": torch.randn(TOKENS, TOKENS)},
    "causal": {"is_causal": True},
    "scaled": {"attn_mask": MASK, "scale": 0.3},
}


class Attending(nn.Module):
    """Attention of ``[B, L, E]`` before a transformer."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.dit, self.options = dit(2), options

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        mixed = scaled_dot_product_attention(sample, sample, sample, **self.options)
        found: Tensor = self.dit(sample + mixed, timestep, text)
        return found


@pytest.mark.sweep(1)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_attention_without_heads(options, tmp_path):
    model = fxcache.optimize(Attending(options).eval(), fxcache.Uniform(3))
    expected = denoised(model)[-1]
    folder = fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    assert error(by_onnx(folder), expected) < 1e-5
