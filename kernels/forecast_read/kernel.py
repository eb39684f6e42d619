"""The Triton kernel, and the read of a forecast that other kernels do on their way."""

import triton
import triton.language as tl


@triton.jit
def read(cached, history, weights, at, known):
    """``cached + Σ weights[i] (newer - older)`` at these offsets, in float32; 0 where not known.

    ``history``: a tuple of older values, the newest first; None stands for each that there is not.
    The difference i is that of older value i from the one before it, or from ``cached``.
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
