"""Calls at the sizes of real models. On the meta device they take no memory."""

from typing import Any

import torch
from torch import Tensor

from fxcache.kernels.launches import Cases, Wrap
from fxcache.kernels.residual_norm_modulate import launch, reference

# Batch, tokens, channels of the last block.
SD3_1024 = (2, 4096, 1536)
FLUX_1024 = (1, 4096, 3072)
EPS = 1e-6


def inputs(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: str,
    order: int = 0,
    rms: bool = False,
    keeps_total: bool = False,
    steps: torch.dtype | None = None,
) -> tuple[Any, ...]:
    """Return inputs as in the last block of a transformer, whose norm has no weights."""
    batch, _, channels = shape
    stream, *terms = (
        torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(order + 2)
    )
    scale, shift = torch.randn(batch, 2 * channels, dtype=dtype, device=device).chunk(2, 1)
    weights = torch.randn(order, device=device) if order else None
    row_scale = None
    if steps:
        # Larger values have no float8_e4m3fn: they would become NaN.
        terms = [term.mul(100).clamp(-127, 127).to(steps) for term in terms]
        row_scale = torch.full((*shape[:-1], 1), 0.01, device=device)
    options = (EPS, rms, keeps_total, row_scale, True)
    return stream, terms, weights, None, None, scale, shift, *options


def run(wrap: Wrap, *arguments: Any) -> list[Tensor]:
    return launch.residual_norm_modulate(*arguments, wrap)  # type: ignore[call-arg]


def eager(*arguments: Any) -> tuple[Tensor, ...]:
    """Compute the same in PyTorch."""
    *given, keeps_total, row_scale, adds_one = arguments
    found = reference.residual_norm_modulate(*given, row_scale, adds_one)  # type: ignore[call-arg]
    return found[: 1 + keeps_total]


CASES: Cases = {
    "SD3, fp16": lambda device: inputs(SD3_1024, torch.float16, device),
    "FLUX, bf16": lambda device: inputs(FLUX_1024, torch.bfloat16, device),
    "FLUX, bf16, order 2, sum kept": lambda device: inputs(
        FLUX_1024, torch.bfloat16, device, order=2, keeps_total=True
    ),
    "FLUX, bf16, cached in int8": lambda device: inputs(
        FLUX_1024, torch.bfloat16, device, steps=torch.int8
    ),
    "FLUX, bf16, cached in float8": lambda device: inputs(
        FLUX_1024, torch.bfloat16, device, steps=torch.float8_e4m3fn
    ),
    "SD3, fp32, RMSNorm": lambda device: inputs(SD3_1024, torch.float32, device, rms=True),
}
