"""Which blocks the kernels run in, and on what memory."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.concat_group_norm_silu.kernel import (
    MOST_CHANNELS,
    PIECE,
    moments_kernel,
    normalize_kernel,
)
from fxcache.kernels.launches import Wrap, as_is

TILE = 4096  # values of a tile


def moments(x: Tensor, groups: int, channels: int, first: int, wrap: Wrap = as_is) -> Tensor:
    """Float32 ``[N, G, pieces, 2]``: mean and squared deviations of each piece, 0 where none is."""
    x = x.flatten(2)
    samples, own, positions = x.shape
    pieces = triton.cdiv(positions, PIECE)
    found = x.new_empty((samples, groups, pieces, 2), dtype=torch.float32)
    size = channels // groups
    block_c = block_of_channels(size)
    if found.numel():
        wrap(moments_kernel)[(groups * pieces, samples)](
            x,
            found,
            positions,
            *x.stride(),
            own,
            first,
            size,
            groups,
            piece=PIECE,
            block_c=block_c,
            block_p=min(TILE // block_c, PIECE),
        )
    return found


def normalize(
    cached: Tensor,
    fresh: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    cached_moments: Tensor,
    fresh_moments: Tensor,
    wrap: Wrap = as_is,
) -> Tensor:
    """What the moments of both halves make of them; laid out as ``fresh`` is."""
    boundary, channels = cached.shape[1], cached.shape[1] + fresh.shape[1]
    out = empty_like(fresh, channels)
    flat = out.flatten(2)
    samples, _, positions = flat.shape
    cached, fresh = cached.flatten(2), fresh.flatten(2)
    size = channels // groups
    block_c = block_of_channels(size)
    block_p = TILE // block_c
    tiles = triton.cdiv(positions, block_p) * triton.cdiv(size, block_c)
    if flat.numel():
        wrap(normalize_kernel)[(tiles * groups, samples)](
            cached,
            fresh,
            weight,
            bias,
            cached_moments,
            fresh_moments,
            flat,
            positions,
            *cached.stride(),
            *fresh.stride(),
            *flat.stride(),
            boundary,
            size,
            groups,
            eps,
            piece=PIECE,
            block_pieces=triton.next_power_of_2(triton.cdiv(positions, PIECE)),
            block_c=block_c,
            block_p=block_p,
        )
    return out


def block_of_channels(size: int) -> int:
    """Of a group of ``size``."""
    return min(int(triton.next_power_of_2(size)), MOST_CHANNELS)


def empty_like(fresh: Tensor, channels: int) -> Tensor:
    """``[N, channels, …]``, channels last where those of ``fresh`` are."""
    samples, own, *spatial = fresh.shape
    if own > 1 and fresh.stride(1) == 1:
        return fresh.new_empty((samples, *spatial, channels)).movedim(-1, 1)
    return fresh.new_empty((samples, channels, *spatial))
