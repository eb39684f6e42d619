"""Which blocks the kernel runs in, and on what memory."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.launches import Wrap, as_is
from fxcache.kernels.quantize_rows.kernel import quantize_kernel

MOST = 4096  # values of a block


def quantize_rows(rows: Tensor, wrap: Wrap = as_is) -> tuple[Tensor, Tensor]:
    """Int8 ``[R, N]`` and float32 ``[R, 1]``."""
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    count, length = rows.shape
    steps = rows.new_empty((count, length), dtype=torch.int8)
    scales = rows.new_empty((count, 1), dtype=torch.float32)
    if rows.numel():
        block = min(int(triton.next_power_of_2(length)), MOST)
        wrap(quantize_kernel)[(count,)](rows, steps, scales, length, rows.stride(0), block=block)
    return steps, scales
