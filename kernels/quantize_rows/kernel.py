"""The Triton kernel, and a function with which other kernels read quantised values.

A program reads one row twice: first for its largest magnitude, then for its steps. The scale of a
row with a value that is not finite is NaN, so that the restored values are NaN.
"""

import triton
import triton.language as tl


@triton.jit
def steps_at(steps, at, known):
    """Load steps at these offsets as float32: int8, or float8_e4m3fn stored as uint8."""
    found = tl.load(steps + at, known, 0)
    if found.dtype == tl.int8:
        return found.to(tl.float32)
    # The bias of the exponent is 7, and that of float16 is 15.
    bits = found.to(tl.uint16)
    half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
    value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def bits_of_float8(value):
    """Return the bits of the nearest float8_e4m3fn, ties to even, for magnitudes up to 448."""
    bits = value.to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    # Round off 20 of 23 mantissa bits. Change the bias of the exponent from 127 to 7.
    normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - (120 << 3)
    # Near 2¹⁴ the spacing of float32 values is that of subnormal float8 values.
    subnormal = (tl.abs(value) + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
    found = tl.where(magnitude < 0x3C800000, subnormal, normal)  # 2⁻⁶
    return (found | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def quantize_kernel(rows, steps, scales, length, stride, most: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    largest, poison = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for begin in range(0, length, block):
        at = begin + tl.arange(0, block).to(tl.int64)
        value = tl.load(rows + (row * stride + at), at < length, 0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value))
        poison += value * 0
    absmax = tl.max(largest)
    scale = absmax / most
    scale = tl.where(scale == 0, 1.0, scale) + tl.sum(poison)
    tl.store(scales + row, scale)
    for begin in range(0, length, block):
        at = begin + tl.arange(0, block).to(tl.int64)
        value = tl.load(rows + (row * stride + at), at < length, 0.0).to(tl.float32)
        if steps.dtype.element_ty == tl.int8:
            step = tl.floor(value / scale + 0.5).to(tl.int8)
        else:
            step = bits_of_float8(value / scale)
        tl.store(steps + (row * length + at), step, at < length)
