"""Calls at the sizes of real models. On the meta device they take no memory."""

import torch
from torch import Tensor

from fxcache.kernels.launches import Cases, Wrap
from fxcache.kernels.relative_l1 import launch, reference

FLUX_1024 = (1, 4096, 3072)
WAN_480P = (1, 32760, 1536)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    now, then = (torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(2))
    return now, then


def run(wrap: Wrap, now: Tensor, then: Tensor) -> Tensor:
    return launch.relative_l1(now, then, wrap)


def eager(now: Tensor, then: Tensor) -> Tensor:
    """Compute the same in PyTorch."""
    return reference.relative_l1(now, then)


CASES: Cases = {
    "FLUX, bf16": lambda device: inputs(FLUX_1024, torch.bfloat16, device),
    "Wan, fp16": lambda device: inputs(WAN_480P, torch.float16, device),
    "FLUX, fp32": lambda device: inputs(FLUX_1024, torch.float32, device),
}
