"""The operator ``fxcache::relative_l1``: the plain reference on the CPU, else the kernels."""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.relative_l1 import reference


@triton_op("fxcache::relative_l1", mutates_args=())
def relative_l1(now: Tensor, then: Tensor) -> Tensor:
    """``‖now − then‖₁ / ‖then‖₁``: what TeaCache and First-Block Cache observe, in one pass.

    Both of one shape, in float32, float16 or bfloat16. Returns float32 without dimensions: 0 / 0
    and no values give NaN, any other number over 0 infinity. The same bits every time.
    """
    from fxcache.kernels.relative_l1 import launch

    return launch.relative_l1(now, then, wrap_triton)


@relative_l1.register_kernel("cpu")
def _(now: Tensor, then: Tensor) -> Tensor:
    return reference.relative_l1(now, then)
