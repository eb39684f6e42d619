"""Which kernels run, in which blocks, and on what memory."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from fxcache.kernels.concat_group_norm_silu.channels_last import (
    moments_last_kernel,
    normalize_last_kernel,
)
from fxcache.kernels.concat_group_norm_silu.kernel import (
    MOST_CHANNELS,
    PIECE,
    moments_kernel,
    normalize_kernel,
)
from fxcache.kernels.launches import Wrap, as_is

TILE = 4096  # values of a tile
SPAN = 128  # channels of a tile, at most, where they are neighbours in memory
WARPS = 8  # to normalise: with four, a tile spills on sm_80
ALIGNED = 8  # channels that one load moves, in half precision


def moments(x: Tensor, groups: int, channels: int, first: int, wrap: Wrap = as_is) -> Tensor:
    """Float32 ``[N, G, pieces, 2]``: mean and squared deviations of each piece, 0 where none is."""
    x = by_position(x)
    samples, own, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    pieces, size = triton.cdiv(positions, PIECE), channels // groups
    found = x.new_empty((samples, groups, pieces, 2), dtype=torch.float32)
    if not found.numel():
        return found
    if is_last(x, size):
        together = groups_together(size, groups)
        wrap(moments_last_kernel)[(triton.cdiv(groups, together) * pieces, samples)](
            x,
            found,
            positions,
            x.stride(0),
            x.stride(-1),
            own,
            first,
            groups,
            size=size,
            together=together,
            piece=PIECE,
            **blocks_of_span(size * together),
        )
        return found
    wrap(moments_kernel)[(groups * pieces, samples)](
        x,
        found,
        positions,
        *strides(x),
        own,
        first,
        size,
        groups,
        piece=PIECE,
        **blocks_of_group(size, PIECE),
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
    keeps_joined: bool = False,
    wrap: Wrap = as_is,
) -> list[Tensor]:
    """What the moments of both halves make of them, and both joined.

    With channels last where both halves have them so, else contiguous, as PyTorch has it.
    """
    boundary, channels = cached.shape[1], cached.shape[1] + fresh.shape[1]
    last = cached.stride(1) == fresh.stride(1) == 1
    outs = [empty(fresh, channels, last) for _ in range(1 + keeps_joined)]
    cached, fresh = by_position(cached), by_position(fresh)
    samples, positions = fresh.shape[0], math.prod(fresh.shape[2:])
    if not outs[0].numel():
        return outs
    size, pieces = channels // groups, triton.cdiv(positions, PIECE)
    moments = (cached_moments, fresh_moments)
    tensors = (cached, fresh, weight, bias, *moments, outs[0], outs[1] if keeps_joined else None)
    constants = {
        "piece": PIECE,
        "block_pieces": triton.next_power_of_2(pieces),
        "num_warps": WARPS,
    }
    if is_last(cached, size) and is_last(fresh, size):
        together = groups_together(size, groups)
        wrap(normalize_last_kernel)[(triton.cdiv(groups, together) * pieces, samples)](
            *tensors,
            positions,
            *[x.stride(d) for x in (cached, fresh, outs[0]) for d in (0, -1)],
            boundary,
            channels,
            groups,
            eps,
            size=size,
            together=together,
            **constants,
            **blocks_of_span(size * together),
        )
        return outs
    blocks = blocks_of_group(size)
    tiles = triton.cdiv(positions, blocks["block_p"]) * triton.cdiv(size, blocks["block_c"])
    wrap(normalize_kernel)[(tiles * groups, samples)](
        *tensors,
        positions,
        *strides(cached),
        *strides(fresh),
        *strides(outs[0]),
        boundary,
        size,
        groups,
        eps,
        **constants,
        **blocks,
    )
    return outs


def by_position(x: Tensor) -> Tensor:
    """``x`` as it is where one stride leads from position to position; else flattened."""
    strides, sizes = x.stride()[2:], x.shape[2:]
    steps = zip(strides, strides[1:], sizes[1:], strict=False)
    return x if all([far == near * size for far, near, size in steps]) else x.flatten(2)  # noqa: C419, Dynamo


def strides(x: Tensor) -> tuple[int, int, int]:
    """From sample to sample, from channel to channel, from position to position."""
    return x.stride(0), x.stride(1), x.stride(-1)


def is_last(x: Tensor, size: int) -> bool:
    """Whether a position's channels are neighbours, and groups of this ``size`` fit a span."""
    return x.stride(1) == 1 and x.stride(-1) != 1 and size <= SPAN


def groups_together(size: int, groups: int) -> int:
    """As many groups of this ``size`` as fit a span, so that spans begin where a load may."""
    most = min(SPAN // size, groups)
    step = ALIGNED // math.gcd(size, ALIGNED)
    return most // step * step or most


def blocks_of_span(channels: int) -> dict[str, Any]:
    block_c = int(triton.next_power_of_2(channels))
    return {"block_c": block_c, "block_p": max(TILE // block_c, 1)}


def blocks_of_group(size: int, most: int = TILE) -> dict[str, Any]:
    """Of a group of ``size``, and at most so many positions."""
    block_c = min(int(triton.next_power_of_2(size)), MOST_CHANNELS)
    return {"block_c": block_c, "block_p": min(TILE // block_c, most)}


def empty(fresh: Tensor, channels: int, last: bool) -> Tensor:
    """``[N, channels, …]``, of so many positions as ``fresh``."""
    shape = (fresh.shape[0], channels, *fresh.shape[2:])
    if last:
        return fresh.new_empty_strided(shape, strides_last(shape))
    return fresh.new_empty(shape)


def strides_last(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a tensor ``[N, C, …]`` without gaps, the channels last."""
    spatial = [shape[1] * math.prod(shape[d + 1 :]) for d in range(2, len(shape))]
    return (math.prod(shape[1:]), 1, *spatial)
