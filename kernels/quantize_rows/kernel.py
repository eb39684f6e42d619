"""The Triton kernel: a program goes over one row twice, for its largest magnitude, then its steps.
And the read of steps that other kernels do on their way.

A row with a value that is not finite gets NaN as its scale, so that what is restored shows it.
"""

import triton
import triton.language as tl


@triton.jit
def steps_at(steps, at, known):
    """Int8 steps at these offsets, or the float8_e4m3fn of which uint8 are the bits, in float32."""
    found = tl.load(steps + at, known, 0)
    if found.dtype == tl.int8:
        return found.to(tl.float32)
    # Its exponent counts from 7, that of float16 from 15.
    bits = found.to(tl.uint16)
    half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
    value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), value)


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
