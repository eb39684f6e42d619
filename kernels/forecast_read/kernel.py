"""The Triton kernel, and the read of a forecast that other kernels do on their way."""

import triton
import triton.language as tl


@triton.jit
def read(cached, first, second, third, fourth, weights, at, known):
    """``cached + Σ weights[i] derivative[i]`` at these offsets, in float32; 0 where not known.

    Derivatives are None from the first that there is not.
    """
    value = tl.load(cached + at, known, 0.0).to(tl.float32)
    if first is not None:
        value += tl.load(weights) * tl.load(first + at, known, 0.0).to(tl.float32)
    if second is not None:
        value += tl.load(weights + 1) * tl.load(second + at, known, 0.0).to(tl.float32)
    if third is not None:
        value += tl.load(weights + 2) * tl.load(third + at, known, 0.0).to(tl.float32)
    if fourth is not None:
        value += tl.load(weights + 3) * tl.load(fourth + at, known, 0.0).to(tl.float32)
    return value


@triton.jit
def forecast_kernel(
    cached,
    first,
    second,
    third,
    fourth,
    weights,
    out,
    count,
    block: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    known = at < count
    value = read(cached, first, second, third, fourth, weights, at, known)
    tl.store(out + at, value.to(out.dtype.element_ty), known)
