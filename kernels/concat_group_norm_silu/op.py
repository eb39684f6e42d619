"""The operators ``fxcache::group_moments`` and ``fxcache::concat_group_norm_silu``.

Tensors on the CPU take the plain reference, all others the Triton kernels; but in graphs that are
compiled, normalising takes the reference. Inductor would have to write for a kernel what it fuses,
and to rewrite what is not laid out as its convolutions are, and saves no byte by it. Without Triton
these modules can still be imported; it is asked for when a kernel is to run.
"""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.concat_group_norm_silu import reference
from fxcache.kernels.launches import is_traced


@triton_op("fxcache::group_moments", mutates_args=())
def group_moments(x: Tensor, groups: int, channels: int, first: int) -> Tensor:
    """What normalising by groups needs to know of ``x``, ``[N, C, …]``.

    ``x`` is channels ``first`` to ``first + C`` of a tensor of ``channels``, in ``groups``. Returns
    float32 ``[N, groups, pieces, 2]``: the mean of each piece of 512 positions, and the sum of
    its squared deviations from that mean; zeros where a group has no channel in ``x``.
    """
    from fxcache.kernels.concat_group_norm_silu import launch

    return launch.moments(x, groups, channels, first, wrap_triton)


@triton_op("fxcache::concat_group_norm_silu", mutates_args=())
def concat_group_norm_silu(
    cached: Tensor,
    fresh: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    cached_moments: Tensor | None = None,
    keeps_joined: bool = False,
) -> list[Tensor]:
    """``silu(group_norm(cat([cached, fresh], 1)))``, and the concatenation where ``keeps_joined``.

    ``cached`` ``[N, C1, …]`` and ``fresh`` ``[N, C2, …]``: float32, float16 or bfloat16, of any
    strides; ``weight`` and ``bias`` ``[C1 + C2]``. ``cached_moments``: ``group_moments(cached,
    groups, C1 + C2, 0)``, where the step that cached it has taken them already: then the statistics
    read ``fresh`` alone. Statistics and arithmetic are in float32. Returns one or two
    ``[N, C1 + C2, …]``.
    """
    if is_traced(fresh):
        return in_aten(cached, fresh, weight, bias, groups, eps, None, keeps_joined)
    from fxcache.kernels.concat_group_norm_silu import launch

    boundary, channels = cached.shape[1], cached.shape[1] + fresh.shape[1]
    if cached_moments is None:
        cached_moments = launch.moments(cached, groups, channels, 0, wrap_triton)
    fresh_moments = launch.moments(fresh, groups, channels, boundary, wrap_triton)
    moments = (cached_moments, fresh_moments)
    return launch.normalize(
        cached, fresh, weight, bias, groups, eps, *moments, keeps_joined, wrap_triton
    )


@group_moments.register_kernel("cpu")
def _(x: Tensor, groups: int, channels: int, first: int) -> Tensor:
    return reference.group_moments(x, groups, channels, first)


@concat_group_norm_silu.register_kernel("cpu")
def in_aten(
    cached: Tensor,
    fresh: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    cached_moments: Tensor | None = None,
    keeps_joined: bool = False,
) -> list[Tensor]:
    del cached_moments  # of the same values
    found = reference.concat_group_norm_silu(cached, fresh, weight, bias, groups, eps)
    return found[: 1 + keeps_joined]
