"""Calls at the sizes of real models. On the meta device they take no memory."""

import torch
from torch import Tensor

from fxcache.kernels.launches import Cases, Wrap
from fxcache.kernels.quantize_rows import launch, reference

SDXL_1024 = (2 * 640, 128 * 128)  # channels by positions
WAN_480P = (32760, 1536)  # tokens by channels


def inputs(
    shape: tuple[int, int], dtype: torch.dtype, device: str, kept_as: torch.dtype = torch.int8
) -> tuple[Tensor, torch.dtype]:
    return torch.empty(shape, dtype=dtype, device=device).normal_(), kept_as


def run(wrap: Wrap, rows: Tensor, kept_as: torch.dtype) -> tuple[Tensor, Tensor]:
    return launch.quantize_rows(rows, kept_as, wrap)


def eager(rows: Tensor, kept_as: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute the same in PyTorch."""
    return reference.quantize_rows(rows, kept_as)


CASES: Cases = {
    "SDXL, fp16": lambda device: inputs(SDXL_1024, torch.float16, device),
    "Wan, bf16": lambda device: inputs(WAN_480P, torch.bfloat16, device),
    "Wan, bf16, float8": lambda device: inputs(
        WAN_480P, torch.bfloat16, device, torch.float8_e4m3fn
    ),
    "Wan, fp32": lambda device: inputs(WAN_480P, torch.float32, device),
}
