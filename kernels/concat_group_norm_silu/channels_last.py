"""The Triton kernels for inputs in the channels-last layout.

A program handles all channels of a span, which consists of ``together`` groups, position by
position. Its loads are as wide as the alignment of a span allows. It computes the statistics of
each channel, and merges them to those of the group at the end, by the formula in ``kernel.py``.
"""

import triton
import triton.language as tl

from fxcache.kernels.concat_group_norm_silu.kernel import (
    PIECE,
    merged,
    piece_of,
    statistics,
    store_normalized,
)


@triton.jit
def moments_last_kernel(
    x,
    moments,  # [N, G, pieces, 2]
    positions,
    stride_n,
    stride_p,
    channels,  # of x; x begins at channel `first` of the concatenation
    first,
    groups,
    size: tl.constexpr,  # channels of a group
    together: tl.constexpr,
    block_c: tl.constexpr,
    block_p: tl.constexpr,
):
    span, part, sample, pieces, last = piece_of(positions)
    at = tl.arange(0, block_c)
    channel = span * (size * together) - first + at
    here = (at < size * together) & (channel >= 0) & (channel < channels)

    of_sample = x + sample * stride_n
    count = 0.0
    mean, deviation = tl.zeros((block_c,), tl.float32), tl.zeros((block_c,), tl.float32)
    for p in range(part * PIECE, last, block_p):
        position = p + tl.arange(0, block_p)
        known = (position < last)[:, None] & here[None, :]
        place = position.to(tl.int64)[:, None] * stride_p + channel.to(tl.int64)[None, :]
        value = tl.load(of_sample + place, known, 0.0).to(tl.float32)
        more = (tl.minimum(p + block_p, last) - p).to(tl.float32)
        more_mean = tl.sum(value, 0) / more
        difference = tl.where(known, value - more_mean[None, :], 0.0)
        own = tl.sum(difference * difference, 0)
        count, mean, deviation = merged(count, mean, deviation, more, more_mean, own)

    for i in tl.static_range(together):
        own = here & (at // size == i)
        own_mean = tl.sum(tl.where(own, mean, 0.0)) / tl.maximum(tl.sum(own.to(tl.float32)), 1.0)
        delta = mean - own_mean
        own_deviation = tl.sum(tl.where(own, deviation + count * delta * delta, 0.0))
        group = span * together + i
        entry = moments + ((sample * groups + group) * pieces + part) * 2
        tl.store(entry, own_mean, group < groups)
        tl.store(entry + 1, own_deviation, group < groups)


@triton.jit
def normalize_last_kernel(
    cached,
    fresh,
    weight,
    bias,
    cached_moments,
    fresh_moments,
    out,
    joined,  # None if the concatenation is not needed
    positions,
    cached_n,
    cached_p,
    fresh_n,
    fresh_p,
    out_n,
    out_c,
    out_p,
    joined_n,
    joined_c,
    joined_p,
    boundary,  # channels of cached
    groups,
    eps,
    size: tl.constexpr,
    together: tl.constexpr,
    block_pieces: tl.constexpr,
    block_c: tl.constexpr,
    block_p: tl.constexpr,
):
    span, part, sample, _, last = piece_of(positions)
    at = tl.arange(0, block_c)
    channel = span * (size * together) + at
    here = (at < size * together) & (channel < size * groups)
    old, new = here & (channel < boundary), here & (channel >= boundary)

    mean, scale = tl.zeros((block_c,), tl.float32), tl.zeros((block_c,), tl.float32)
    for i in tl.static_range(together):
        own_mean, own_scale = statistics(
            cached_moments,
            fresh_moments,
            sample,
            tl.minimum(span * together + i, groups - 1),
            groups,
            size,
            boundary,
            positions,
            eps,
            block_pieces,
        )
        mean = tl.where(at // size == i, own_mean, mean)
        scale = tl.where(at // size == i, own_scale, scale)
    at_c = channel.to(tl.int64)
    factor = tl.load(weight + at_c, here, 0.0).to(tl.float32) * scale
    shift = tl.load(bias + at_c, here, 0.0).to(tl.float32)

    c = at_c[None, :]
    for begin in range(part * PIECE, last, block_p):
        position = begin + tl.arange(0, block_p)
        known, p = (position < last)[:, None], position.to(tl.int64)[:, None]
        from_cached = tl.load(cached + sample * cached_n + p * cached_p + c, known & old[None], 0.0)
        at_fresh = sample * fresh_n + p * fresh_p + (c - boundary)
        from_fresh = tl.load(fresh + at_fresh, known & new[None], 0.0)
        both = tl.where(old[None], from_cached, from_fresh)
        at_out, known = sample * out_n + c * out_c + p * out_p, known & here[None]
        store_normalized(out + at_out, both, mean[None], factor[None], shift[None], known)
        if joined is not None:
            tl.store(joined + sample * joined_n + c * joined_c + p * joined_p, both, known)
