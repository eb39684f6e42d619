"""The Triton kernel, and a function with which other kernels read a forecast."""

import triton
import triton.language as tl


@triton.jit
def read(cached, history, weights, at, known):
    """Load ``cached + Σ weights[i] (newer - older)`` at these offsets, in float32; 0 if masked.

    ``history`` is a tuple of older values, the newest first, filled up with None. Difference i is
    the next newer value, or ``cached``, minus the older value i.
    """
    newer = tl.load(cached + at, known, 0.0).to(tl.float32)
    value = newer
    for i in tl.static_range(len(history)):
        if history[i] is not None:
            older = tl.load(history[i] + at, known, 0.0).to(tl.float32)
            value += tl.load(weights + i) * (newer - older)
            newer = older
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
