"""Chooses the blocks, allocates the outputs, and launches the kernels."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.launches import Wrap, identity
from fxcache.kernels.relative_l1.kernel import quotient_kernel, sums_kernel

BLOCK = 2048
MOST_PIECES = 4096  # one program adds all pieces


def relative_l1(now: Tensor, then: Tensor, wrap: Wrap = identity) -> Tensor:
    """Return a 0-dim float32 tensor."""
    if now.stride() != then.stride() or not dense(now):
        now, then = now.contiguous(), then.contiguous()
    count = now.numel()
    if not count:
        return now.new_full((), float("nan"), dtype=torch.float32)
    blocks = triton.cdiv(count, BLOCK)
    piece = BLOCK * triton.next_power_of_2(triton.cdiv(blocks, MOST_PIECES))
    pieces = triton.cdiv(count, piece)
    sums = now.new_empty((2, pieces), dtype=torch.float32)
    out = now.new_empty((), dtype=torch.float32)
    wrap(sums_kernel)[(pieces,)](now, then, sums, count, piece=piece, block=BLOCK)
    wrap(quotient_kernel)[(1,)](sums, out, pieces, block=triton.next_power_of_2(pieces))
    return out


def dense(value: Tensor) -> bool:
    """Return whether the memory of ``value`` has no gaps, so that it can be read in order."""
    return value.stride() == torch.empty_like(value, device="meta").stride()
