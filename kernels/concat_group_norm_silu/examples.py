"""Calls at the sizes of real models. On the meta device they take no memory."""

import torch
from torch import Tensor

from fxcache.kernels.concat_group_norm_silu import launch, reference
from fxcache.kernels.launches import Cases, Wrap

# Batch, channels of the cached and the fresh half, side: the last up block, with guidance.
SD_1_5_512 = (2, 640, 320, 64)
SDXL_1024 = (2, 640, 320, 128)
GROUPS, EPS = 32, 1e-5


def inputs(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: str,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> tuple[Tensor, ...]:
    """Return both halves, weight and bias, with random values, and the first half's moments."""
    batch, cached, fresh, side = shape
    old, new = (
        torch.empty(batch, channels, side, side, dtype=dtype, device=device)
        .normal_()
        .contiguous(memory_format=memory_format)
        for channels in (cached, fresh)
    )
    weight, bias = torch.randn(2, cached + fresh, dtype=dtype, device=device)
    moments = reference.group_moments(old, GROUPS, cached + fresh, 0)
    return old, new, weight, bias, moments


def run(
    wrap: Wrap, cached: Tensor, fresh: Tensor, weight: Tensor, bias: Tensor, moments: Tensor
) -> list[Tensor]:
    """Run the kernels as a reuse step does: it has the moments of the cached half."""
    new = launch.moments(fresh, GROUPS, len(weight), cached.shape[1], wrap)
    return launch.normalize(cached, fresh, weight, bias, GROUPS, EPS, moments, new, True, wrap)


def eager(
    cached: Tensor, fresh: Tensor, weight: Tensor, bias: Tensor, _moments: Tensor
) -> list[Tensor]:
    """Compute the same in PyTorch, which does not need the moments."""
    return reference.concat_group_norm_silu(cached, fresh, weight, bias, GROUPS, EPS)


CASES: Cases = {
    "SD 1.5, fp16": lambda device: inputs(SD_1_5_512, torch.float16, device),
    "SDXL, bf16": lambda device: inputs(SDXL_1024, torch.bfloat16, device),
    "SD 1.5, fp32": lambda device: inputs(SD_1_5_512, torch.float32, device),
    "SD 1.5, fp16, channels last": lambda device: inputs(
        SD_1_5_512, torch.float16, device, torch.channels_last
    ),
    "SDXL, bf16, channels last": lambda device: inputs(
        SDXL_1024, torch.bfloat16, device, torch.channels_last
    ),
}
