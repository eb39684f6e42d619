"""Which blocks the kernels run in, and on what memory."""

import torch
import triton
from torch import Tensor

from fxcache.kernels.launches import Wrap, as_is
from fxcache.kernels.relative_l1.kernel import quotient_kernel, sums_kernel

BLOCK = 2048
MOST_PIECES = 4096  # one program adds them up


def relative_l1(now: Tensor, then: Tensor, wrap: Wrap = as_is) -> Tensor:
    """Float32, no dimensions."""
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
    """Whether its memory has no gaps: then all of it can be read in the order it lies in."""
    return value.stride() == torch.empty_like(value, device="meta").stride()
