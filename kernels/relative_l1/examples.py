"""Calls at the sizes of real models; on the meta device they take no memory."""

import torch
from torch import Tensor

from fxcache.kernels.launches import Wrap
from fxcache.kernels.relative_l1 import launch

FLUX_1024 = (1, 4096, 3072)
WAN_480P = (1, 32760, 1536)


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "meta"
) -> tuple[Tensor, Tensor]:
    now, then = (torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(2))
    return now, then


def run(wrap: Wrap, now: Tensor, then: Tensor) -> Tensor:
    return launch.relative_l1(now, then, wrap)


EXAMPLES = {
    "bf16": lambda wrap: run(wrap, *inputs(FLUX_1024, torch.bfloat16)),
    "fp16": lambda wrap: run(wrap, *inputs(WAN_480P, torch.float16)),
    "fp32": lambda wrap: run(wrap, *inputs(FLUX_1024, torch.float32)),
}
