"""The operator ``fxcache::relative_l1``: the reference on the CPU, the kernels elsewhere."""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.relative_l1 import reference


@triton_op("fxcache::relative_l1", mutates_args=())
def relative_l1(now: Tensor, then: Tensor) -> Tensor:
    """Compute ``‖now − then‖₁ / ‖then‖₁``, which TeaCache and First-Block Cache observe.

    The result always has the same bits.

    Args:
        now: The new value, in float32, float16 or bfloat16.
        then: The old value, with the same shape and dtype.

    Returns:
        A 0-dim float32 tensor: NaN for 0 / 0 and for empty inputs, infinity for other x / 0.
    """
    from fxcache.kernels.relative_l1 import launch

    return launch.relative_l1(now, then, wrap_triton)


@relative_l1.register_kernel("cpu")
def _(now: Tensor, then: Tensor) -> Tensor:
    return reference.relative_l1(now, then)
