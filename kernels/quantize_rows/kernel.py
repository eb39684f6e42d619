"""The Triton kernel: a program goes over one row twice, for its largest magnitude, then its steps.

A row with a value that is not finite gets NaN as its scale, so that what is restored shows it.
"""

import triton
import triton.language as tl


@triton.jit
def quantize_kernel(rows, steps, scales, length, stride, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    largest, poison = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for begin in range(0, length, block):
        at = begin + tl.arange(0, block).to(tl.int64)
        value = tl.load(rows + (row * stride + at), at < length, 0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value))
        poison += value * 0
    absmax = tl.max(largest)
    scale = tl.where(absmax == 0, 1.0, absmax / 127) + tl.sum(poison)
    tl.store(scales + row, scale)
    for begin in range(0, length, block):
        at = begin + tl.arange(0, block).to(tl.int64)
        value = tl.load(rows + (row * stride + at), at < length, 0.0).to(tl.float32)
        step = tl.floor(value / scale + 0.5).to(tl.int8)
        tl.store(steps + (row * length + at), step, at < length)
