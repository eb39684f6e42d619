"""The operators ``fxcache::group_moments`` and ``fxcache::concat_group_norm_silu``.

The reference runs on the CPU, and the Triton kernels run on other devices. In compiled graphs the
reference normalises: a kernel would make Inductor write inputs to memory that it fuses otherwise,
and change their layout to that of convolutions, and it would save no bytes. This module can be
imported without Triton, which is imported when a kernel runs.
"""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.concat_group_norm_silu import reference
from fxcache.kernels.launches import is_traced


@triton_op("fxcache::group_moments", mutates_args=())
def group_moments(x: Tensor, groups: int, channels: int, first: int) -> Tensor:
    """Compute the statistics of ``x`` for a group normalisation.

    Args:
        x: ``[N, C, …]``: the channels ``first`` to ``first + C`` of the normalised tensor.
        groups: The number of groups.
        channels: The number of channels of the normalised tensor.
        first: The first channel.

    Returns:
        Float32 ``[N, groups, pieces, 2]``: the mean of each piece of 512 positions, and the sum of
        squared deviations from that mean. Both are zero if a group has no channel in ``x``.
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
    """Compute ``silu(group_norm(cat([cached, fresh], 1)))``, with arithmetic in float32.

    Args:
        cached: ``[N, C1, …]``, float32, float16 or bfloat16, with any strides.
        fresh: ``[N, C2, …]``, with the dtype of ``cached`` and any strides.
        weight: ``[C1 + C2]``.
        bias: ``[C1 + C2]``.
        groups: The number of groups.
        eps: The constant that is added to the variance.
        cached_moments: ``group_moments(cached, groups, C1 + C2, 0)``; None to compute it.
        keeps_joined: Whether to return the concatenation too.

    Returns:
        The result ``[N, C1 + C2, …]``, and the concatenation if ``keeps_joined``.
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
    del cached_moments  # the reference computes its own statistics
    found = reference.concat_group_norm_silu(cached, fresh, weight, bias, groups, eps)
    return found[: 1 + keeps_joined]
