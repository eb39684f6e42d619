"""The operator ``fxcache::forecast_read``.

The reference runs on the CPU and in compiled graphs, where Inductor fuses the sum with the
operators that read it. Otherwise the kernel runs.
"""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.forecast_read import reference
from fxcache.kernels.launches import is_traced


@triton_op("fxcache::forecast_read", mutates_args=())
def forecast_read(terms: list[Tensor], weights: Tensor) -> Tensor:
    """Extrapolate a cached value: ``terms[0] + Σ weights[i] (terms[i] - terms[i + 1])``.

    Args:
        terms: The values of one to five refreshes, the newest first, with one shape, in float32,
            float16 or bfloat16.
        weights: Float32 ``[len(terms) - 1]``, one for each difference of neighbours.

    Returns:
        The sum, computed in float32 and rounded once.
    """
    if is_traced(terms[0]):
        return in_aten(terms, weights)
    from fxcache.kernels.forecast_read import launch

    return launch.forecast_read(terms, weights, wrap_triton)


@forecast_read.register_kernel("cpu")
def in_aten(terms: list[Tensor], weights: Tensor) -> Tensor:
    return reference.forecast_read(terms, weights).to(terms[0].dtype, copy=True)
