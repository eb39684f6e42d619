"""The Triton kernels: one sums pieces, the other divides the totals.

There are no atomics, so that the result always has the same bits. Each thread of the first kernel
adds at most about a thousand values in float32. Pieces are then added pairwise.
"""

import triton
import triton.language as tl


@triton.jit
def sums_kernel(now, then, sums, count, piece: tl.constexpr, block: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * piece
    changed, size = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for offset in range(0, piece, block):
        at = begin + offset + tl.arange(0, block)
        known = at < count
        old = tl.load(then + at, known, 0.0).to(tl.float32)
        changed += tl.abs(tl.load(now + at, known, 0.0).to(tl.float32) - old)
        size += tl.abs(old)
    place = sums + tl.program_id(0).to(tl.int64)
    tl.store(place, tl.sum(changed))
    tl.store(place + tl.num_programs(0).to(tl.int64), tl.sum(size))


@triton.jit
def quotient_kernel(sums, out, pieces, block: tl.constexpr):
    part = tl.arange(0, block).to(tl.int64)
    known = part < pieces
    changed = tl.sum(tl.load(sums + part, known, 0.0))
    size = tl.sum(tl.load(sums + (pieces + part), known, 0.0))
    tl.store(out, changed / size)
