"""Chooses the kernels and their blocks, allocates the outputs, and launches the kernels."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fxcache.kernels.concat_group_norm_silu.channels_last import (
    moments_last_kernel,
    normalize_last_kernel,
)
from fxcache.kernels.concat_group_norm_silu.kernel import PIECE, moments_kernel, normalize_kernel
from fxcache.kernels.launches import Wrap, identity

TILE = 4096  # values of a tile
MOST_CHANNELS = 32  # of a tile for any strides
SPAN = 128  # the greatest number of channels of a tile for the channels-last layout
WARPS = 8  # of the kernels that normalise: with four, registers spill on sm_80
ALIGNED = 8  # channels that one load moves, in half precision


class Tensors(NamedTuple):
    """The tensors of the kernels that normalise, in the order of their parameters."""

    cached: Tensor
    fresh: Tensor
    weight: Tensor
    bias: Tensor
    cached_moments: Tensor
    fresh_moments: Tensor
    out: Tensor
    joined: Tensor | None  # None if the concatenation is not needed


def moments(x: Tensor, groups: int, channels: int, first: int, wrap: Wrap = identity) -> Tensor:
    """Return the mean and squared deviations of each piece: float32 ``[N, G, pieces, 2]``."""
    x = by_position(x)
    samples, own, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    pieces, size = count_pieces(positions), channels // groups
    found = x.new_empty((samples, groups, pieces, 2), dtype=torch.float32)
    if not found.numel():
        return found
    arguments: tuple[Any, ...]
    if is_last(x, size):
        spans, constants = spans_of(size, groups)
        arguments = (x, found, positions, x.stride(0), x.stride(-1), own, first, groups)
        wrap(moments_last_kernel)[(spans * pieces, samples)](*arguments, **constants)
    else:
        constants = blocks_of_group(size, PIECE.value)
        arguments = (x, found, positions, *strides(x), own, first, size, groups)
        wrap(moments_kernel)[(groups * pieces, samples)](*arguments, **constants)
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
    wrap: Wrap = identity,
) -> list[Tensor]:
    """Return the normalised concatenation, and the concatenation if ``keeps_joined``.

    The outputs have PyTorch's strides, on which later operators may depend. The concatenation is
    channels-last if both halves are, and contiguous otherwise. The normalised tensor has the same
    strides on the CPU, and is always contiguous on other devices.
    """
    channels = cached.shape[1] + fresh.shape[1]
    last = cached.stride(1) == fresh.stride(1) == 1
    forms = (last and fresh.device.type == "cpu", last)
    outs = [empty(fresh, channels, form) for form in forms[: 1 + keeps_joined]]
    if not outs[0].numel():
        return outs
    old, new, size = by_position(cached), by_position(fresh), channels // groups
    in_spans = is_last(old, size) and is_last(new, size)
    joined = outs[1] if keeps_joined else None
    tensors = Tensors(old, new, weight, bias, cached_moments, fresh_moments, outs[0], joined)
    normalize_all = normalize_spans if in_spans else normalize_groups
    normalize_all(tensors, size, groups, eps, wrap)
    return outs


def normalize_spans(tensors: Tensors, size: int, groups: int, eps: float, wrap: Wrap) -> None:
    """Launch a program for each piece of a span of several groups with ``size`` channels each."""
    samples, positions = tensors.out.shape[0], math.prod(tensors.out.shape[2:])
    pieces, (spans, constants) = count_pieces(positions), spans_of(size, groups)
    read = [x.stride(d) for x in (tensors.cached, tensors.fresh) for d in (0, -1)]
    layouts = (*read, *strides_of_outputs(tensors))
    arguments = (*tensors, positions, *layouts, tensors.cached.shape[1], groups, eps)
    wrap(normalize_last_kernel)[(spans * pieces, samples)](
        *arguments, block_pieces=triton.next_power_of_2(pieces), num_warps=WARPS, **constants
    )


def normalize_groups(tensors: Tensors, size: int, groups: int, eps: float, wrap: Wrap) -> None:
    """Launch a program for each tile of one group with ``size`` channels."""
    samples, positions = tensors.out.shape[0], math.prod(tensors.out.shape[2:])
    pieces, blocks = count_pieces(positions), blocks_of_group(size)
    tiles = triton.cdiv(positions, blocks["block_p"]) * triton.cdiv(size, blocks["block_c"])
    read = (*strides(tensors.cached), *strides(tensors.fresh))
    layouts = (*read, *strides_of_outputs(tensors))
    arguments = (*tensors, positions, *layouts, tensors.cached.shape[1], size, groups, eps)
    wrap(normalize_kernel)[(tiles * groups, samples)](
        *arguments, block_pieces=triton.next_power_of_2(pieces), num_warps=WARPS, **blocks
    )


def by_position(x: Tensor) -> Tensor:
    """Return ``x`` if one stride leads from each position to the next; a flat copy otherwise."""
    strides, sizes = x.stride()[2:], x.shape[2:]
    steps = zip(strides, strides[1:], sizes[1:], strict=False)
    return x if all([far == near * size for far, near, size in steps]) else x.flatten(2)  # noqa: C419, Dynamo


def strides(x: Tensor) -> tuple[int, int, int]:
    """Return the strides between samples, between channels and between positions."""
    return x.stride(0), x.stride(1), x.stride(-1)


def strides_of_outputs(tensors: Tensors) -> tuple[int, ...]:
    """Return the strides of both outputs; zeros for a concatenation that is not needed."""
    joined = (0, 0, 0) if tensors.joined is None else strides(tensors.joined)
    return (*strides(tensors.out), *joined)


def is_last(x: Tensor, size: int) -> bool:
    """Return whether ``x`` is channels-last, and a group of this ``size`` fits into a span."""
    return x.stride(1) == 1 and x.stride(-1) != 1 and size <= SPAN


def count_pieces(positions: int) -> int:
    """Return the number of pieces for this number of positions."""
    pieces: int = triton.cdiv(positions, PIECE.value)
    return pieces


def spans_of(size: int, groups: int) -> tuple[int, dict[str, int]]:
    """Return the number of spans, and the constants of a program for one span."""
    together = groups_together(size, groups)
    block_c = int(triton.next_power_of_2(size * together))
    constants = {"size": size, "together": together, "block_c": block_c, "block_p": TILE // block_c}
    return triton.cdiv(groups, together), constants


def groups_together(size: int, groups: int) -> int:
    """Return how many groups of this ``size`` form a span, so that spans begin aligned."""
    most = min(SPAN // size, groups)
    step = ALIGNED // math.gcd(size, ALIGNED)
    return most // step * step or most


def blocks_of_group(size: int, most: int = TILE) -> dict[str, int]:
    """Return the block sizes for groups of ``size`` channels and at most ``most`` positions."""
    block_c = min(int(triton.next_power_of_2(size)), MOST_CHANNELS)
    return {"block_c": block_c, "block_p": min(TILE // block_c, most)}


def empty(fresh: Tensor, channels: int, last: bool) -> Tensor:
    """Return an empty tensor ``[N, channels, …]`` with the positions of ``fresh``."""
    shape = (fresh.shape[0], channels, *fresh.shape[2:])
    if last:
        return fresh.new_empty_strided(shape, strides_last(shape))
    return fresh.new_empty(shape)


def strides_last(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a dense channels-last tensor ``[N, C, …]``."""
    spatial = [shape[1] * math.prod(shape[d + 1 :]) for d in range(2, len(shape))]
    return (math.prod(shape[1:]), 1, *spatial)
