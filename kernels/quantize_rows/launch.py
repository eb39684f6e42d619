"""Which blocks the kernel runs in, and on what memory."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.launches import Wrap, as_is
from fxcache.kernels.quantize_rows.kernel import quantize_kernel
from fxcache.kernels.quantize_rows.reference import LARGEST

MOST = 4096  # values of a block


def quantize_rows(rows: Tensor, dtype: torch.dtype, wrap: Wrap = as_is) -> tuple[Tensor, Tensor]:
    """``[R, N]`` of this dtype and float32 ``[R, 1]``."""
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    count, length = rows.shape
    # Not every GPU's Triton knows float8_e4m3fn: its bits are made.
    kept_as = torch.int8 if dtype is torch.int8 else torch.uint8
    steps = rows.new_empty((count, length), dtype=kept_as)
    scales = rows.new_empty((count, 1), dtype=torch.float32)
    if rows.numel():
        block = min(int(triton.next_power_of_2(length)), MOST)
        wrap(quantize_kernel)[(count,)](
            rows, steps, scales, length, rows.stride(0), most=LARGEST[dtype], block=block
        )
    return steps.view(dtype), scales
