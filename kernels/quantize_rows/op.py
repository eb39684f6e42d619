"""The operator ``fxcache::quantize_rows``: the plain reference on the CPU, else the kernel."""

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.quantize_rows import reference


@triton_op("fxcache::quantize_rows", mutates_args=())
def quantize_rows(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``rows`` ``[R, N]`` in eight bits, and the float32 scales ``[R, 1]`` that restore them.

    ``dtype``: int8, and ``|rows − steps · scales| ≤ absmax / 254`` for each row's largest
    magnitude, but for rounding in float32; or float8_e4m3fn, those nearest to the row where its
    largest magnitude is made 448. The scale of zeros is 1. Float32, float16 or bfloat16; ``N`` at
    least 1.
    """
    from fxcache.kernels.quantize_rows import launch

    return launch.quantize_rows(rows, dtype, wrap_triton)


@quantize_rows.register_kernel("cpu")
def _(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    steps, scales = reference.quantize_rows(rows, dtype)
    return steps.contiguous(), scales
