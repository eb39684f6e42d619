"""Chooses the blocks, allocates the outputs, and launches the kernel."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.launches import Wrap, identity
from fxcache.kernels.quantize_rows.kernel import quantize_kernel
from fxcache.kernels.quantize_rows.reference import LARGEST

MOST = 4096  # values of a block


def quantize_rows(rows: Tensor, dtype: torch.dtype, wrap: Wrap = identity) -> tuple[Tensor, Tensor]:
    """Return steps ``[R, N]`` in this dtype and float32 scales ``[R, 1]``."""
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    count, length = rows.shape
    # Triton does not support float8_e4m3fn on every GPU, so the kernel writes its bits.
    kept_as = torch.int8 if dtype is torch.int8 else torch.uint8
    steps = rows.new_empty((count, length), dtype=kept_as)
    scales = rows.new_empty((count, 1), dtype=torch.float32)
    if rows.numel():
        block = min(int(triton.next_power_of_2(length)), MOST)
        wrap(quantize_kernel)[(count,)](
            rows, steps, scales, length, rows.stride(0), most=LARGEST[dtype], block=block
        )
    return steps.view(dtype), scales
