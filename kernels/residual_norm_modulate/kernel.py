"""The Triton kernel. A program holds one token in registers.

Mean and variance are computed in two passes over the registers, in float32. A forecast of the
cached value only costs the reads of its history. A cached value in eight bits costs the read of one
byte for each value, and of one scale. Absent tensors are None. If another tensor took their place,
Inductor would compute it again for each place.
"""

import triton
import triton.language as tl

from fxcache.kernels.forecast_read.kernel import read
from fxcache.kernels.quantize_rows.kernel import steps_at


@triton.jit
def residual_norm_modulate_kernel(
    stream,
    cached,
    first,
    second,
    third,
    fourth,
    weights,
    weight,
    bias,
    scale,
    shift,
    row_scale,  # of a token, if the cache holds eight-bit steps
    out,
    total,
    tokens,  # of a sample
    channels,
    stream_b,
    stream_t,
    cached_b,
    cached_t,
    scale_b,
    shift_b,
    eps,
    rms: tl.constexpr,
    adds_one: tl.constexpr,
    block: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    sample, row = token // tokens, token % tokens
    channel = tl.arange(0, block).to(tl.int64)
    known = channel < channels
    at_cached = sample * cached_b + row * cached_t + channel
    if row_scale is not None:
        value = steps_at(cached, at_cached, known) * tl.load(row_scale + token)
    else:
        value = read(cached, first, second, third, fourth, weights, at_cached, known)
    value += tl.load(stream + sample * stream_b + row * stream_t + channel, known, 0.0)
    at_out = token * channels + channel
    if total is not None:
        tl.store(total + at_out, value.to(total.dtype.element_ty), known)
    if not rms:
        value = tl.where(known, value - tl.sum(value) / channels, 0.0)
    value = value / tl.sqrt(tl.sum(value * value) / channels + eps)
    if weight is not None:
        value *= tl.load(weight + channel, known, 0.0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + channel, known, 0.0).to(tl.float32)
    if scale is not None:
        factor = tl.load(scale + sample * scale_b + channel, known, 0.0).to(tl.float32)
        value *= 1 + factor if adds_one else factor
    if shift is not None:
        value += tl.load(shift + sample * shift_b + channel, known, 0.0).to(tl.float32)
    tl.store(out + at_out, value.to(out.dtype.element_ty), known)
