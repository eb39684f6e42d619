"""The operator ``fxcache::forecast_read``: the kernel, and elsewhere the plain reference.

That is on the CPU, and in graphs that are compiled: Inductor fuses a sum with what reads it.
"""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.forecast_read import reference
from fxcache.kernels.launches import is_traced


@triton_op("fxcache::forecast_read", mutates_args=())
def forecast_read(terms: list[Tensor], weights: Tensor) -> Tensor:
    """``terms[0] + Σ weights[i] (terms[i] - terms[i + 1])``: a cached value, extrapolated.

    Args:
        terms: The values of one to five refreshes, the newest first, of one shape, in float32,
            float16 or bfloat16.
        weights: Float32, one for each difference of neighbours.

    Returns:
        The sum, taken in float32 and rounded once.
    """
    if is_traced(terms[0]):
        return in_aten(terms, weights)
    from fxcache.kernels.forecast_read import launch

    return launch.forecast_read(terms, weights, wrap_triton)


@forecast_read.register_kernel("cpu")
def in_aten(terms: list[Tensor], weights: Tensor) -> Tensor:
    return reference.forecast_read(terms, weights).to(terms[0].dtype, copy=True)
