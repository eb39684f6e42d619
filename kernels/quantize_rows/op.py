"""The operator ``fxcache::quantize_rows``: the reference on the CPU, the kernel elsewhere."""

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.quantize_rows import reference


@triton_op("fxcache::quantize_rows", mutates_args=())
def quantize_rows(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantise rows to eight bits.

    Args:
        rows: ``[R, N]``, float32, float16 or bfloat16, with ``N`` at least 1.
        dtype: int8: ``|rows − steps · scales| ≤ absmax / 254`` up to rounding in float32, where
            ``absmax`` is the largest magnitude of the row. Or float8_e4m3fn: the values nearest to
            the row, scaled so that its largest magnitude is 448.

    Returns:
        The steps ``[R, N]`` and the float32 scales ``[R, 1]``. The scale of a row of zeros is 1.
    """
    from fxcache.kernels.quantize_rows import launch

    return launch.quantize_rows(rows, dtype, wrap_triton)


@quantize_rows.register_kernel("cpu")
def _(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    steps, scales = reference.quantize_rows(rows, dtype)
    return steps.contiguous(), scales
