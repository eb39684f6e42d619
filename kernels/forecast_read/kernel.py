"""The Triton kernel, and the read of a forecast that other kernels do on their way."""

import triton
import triton.language as tl


@triton.jit
def read(cached, derivatives, weights, at, known):
    """``cached + Σ weights[i] derivatives[i]`` at these offsets, in float32; 0 where not known.

    ``derivatives``: a tuple; None stands for each that there is not.
    """
    value = tl.load(cached + at, known, 0.0).to(tl.float32)
    for i in tl.static_range(len(derivatives)):
        if derivatives[i] is not None:
            derivative = tl.load(derivatives[i] + at, known, 0.0).to(tl.float32)
            value += tl.load(weights + i) * derivative
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
    value = read(cached, (first, second, third, fourth), weights, at, known)
    tl.store(out + at, value.to(out.dtype.element_ty), known)
