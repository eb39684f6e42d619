"""The Triton kernel, and a function with which other kernels read a forecast."""

import triton
import triton.language as tl


@triton.jit
def read(cached, first, second, third, fourth, weights, at, known):
    """Load ``cached + Σ weights[i] (newer - older)`` at these offsets, in float32; 0 if masked.

    ``first`` to ``fourth`` are older values, the newest first, filled up with None. Difference i is
    the next newer value, or ``cached``, minus the older value i. They are no tuple: Triton 3.6
    accepts no None in a tuple.
    """
    newer = tl.load(cached + at, known, 0.0).to(tl.float32)
    value = newer
    value, newer = extended(value, newer, first, weights, 0, at, known)
    value, newer = extended(value, newer, second, weights, 1, at, known)
    value, newer = extended(value, newer, third, weights, 2, at, known)
    value, newer = extended(value, newer, fourth, weights, 3, at, known)
    return value


@triton.jit
def extended(value, newer, older, weights, i: tl.constexpr, at, known):
    """Add the weighted difference to ``value`` unless ``older`` is None; also return the older."""
    if older is not None:
        loaded = tl.load(older + at, known, 0.0).to(tl.float32)
        value += tl.load(weights + i) * (newer - loaded)
        newer = loaded
    return value, newer


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
