"""Calls at the sizes of real models. On the meta device they take no memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fxcache.kernels.forecast_read import launch, reference
from fxcache.kernels.launches import Cases, Wrap

SDXL_1024 = (2, 640, 128, 128)
FLUX_1024 = (1, 4096, 3072)


def inputs(
    shape: Sequence[int], dtype: torch.dtype, order: int, device: str
) -> tuple[list[Tensor], Tensor]:
    """Return random values of refreshes, and random weights of their differences."""
    terms = [torch.empty(*shape, dtype=dtype, device=device).normal_() for _ in range(order + 1)]
    return terms, torch.randn(order, device=device)


def run(wrap: Wrap, terms: list[Tensor], weights: Tensor) -> Tensor:
    return launch.forecast_read(terms, weights, wrap)


def eager(terms: list[Tensor], weights: Tensor) -> Tensor:
    """Compute the same in PyTorch."""
    return reference.forecast_read(terms, weights)


CASES: Cases = {
    "SDXL, fp16, order 1": lambda device: inputs(SDXL_1024, torch.float16, 1, device),
    "FLUX, bf16, order 2": lambda device: inputs(FLUX_1024, torch.bfloat16, 2, device),
    "FLUX, fp32, order 4": lambda device: inputs(FLUX_1024, torch.float32, 4, device),
}
