"""The Triton kernels for any strides: moments of each group, then one pass that normalises.

A program handles channels of one group; ``channels_last.py`` handles several groups. A piece
consists of ``PIECE`` positions of those channels of one group that are in one tensor. Its moments
are its mean and the sum of squared deviations from that mean. Pieces are merged by the formula of
Chan, Golub and LeVeque ("Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979, equation 2.1). There are no atomics, so that results do not depend on the order
of the blocks.
"""

import triton
import triton.language as tl

PIECE = tl.constexpr(512)  # positions


@triton.jit
def piece_of(positions):
    """Return this program's group or span, piece and sample; the number of pieces; its end."""
    number, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pieces = tl.cdiv(positions, PIECE)
    part = number % pieces
    return number // pieces, part, sample, pieces, tl.minimum((part + 1) * PIECE, positions)


@triton.jit
def merged(count, mean, deviation, more, more_mean, more_deviation):
    """Merge the count, mean and deviation of two sets of values (equation 2.1)."""
    total = count + more
    delta = more_mean - mean
    deviation += more_deviation + delta * delta * (count * more / total)
    return total, mean + delta * (more / total), deviation


@triton.jit
def store_normalized(out, value, mean, factor, shift, known):
    """Store ``silu((value - mean) * factor + shift)`` at the addresses ``out``."""
    found = (value.to(tl.float32) - mean) * factor + shift
    found = found * tl.sigmoid(found)
    tl.store(out, found.to(out.dtype.element_ty), known)


@triton.jit
def moments_kernel(
    x,
    moments,  # [N, G, pieces, 2]
    positions,
    stride_n,
    stride_c,
    stride_p,
    channels,  # of x; x begins at channel `first` of the concatenation
    first,
    size,  # channels of a group
    groups,
    block_c: tl.constexpr,
    block_p: tl.constexpr,
):
    group, part, sample, pieces, last = piece_of(positions)
    begin = tl.maximum(group * size - first, 0)
    end = tl.minimum((group + 1) * size - first, channels)
    of_sample = x + sample * stride_n
    count, mean, deviation = 0.0, 0.0, 0.0
    for c in range(begin, end, block_c):
        for p in range(part * PIECE, last, block_p):
            channel, position = c + tl.arange(0, block_c), p + tl.arange(0, block_p)
            known = (channel < end)[:, None] & (position < last)[None, :]
            at_c, at_p = channel.to(tl.int64) * stride_c, position.to(tl.int64) * stride_p
            value = tl.load(of_sample + at_c[:, None] + at_p[None, :], known, 0.0).to(tl.float32)
            here = (tl.minimum(c + block_c, end) - c) * (tl.minimum(p + block_p, last) - p)
            here = here.to(tl.float32)
            here_mean = tl.sum(value) / here
            difference = tl.where(known, value - here_mean, 0.0)
            own = tl.sum(difference * difference)
            count, mean, deviation = merged(count, mean, deviation, here, here_mean, own)
    place = moments + ((sample * groups + group) * pieces + part) * 2
    tl.store(place, mean)
    tl.store(place + 1, deviation)


@triton.jit
def pieces_of(moments, sample, group, groups, channels, positions, block: tl.constexpr):
    """Load the counts, means and deviations of one group's pieces in one tensor."""
    pieces = tl.cdiv(positions, PIECE)
    part = tl.arange(0, block)
    known = part < pieces
    place = moments + ((sample * groups + group) * pieces + part) * 2
    length = tl.minimum((part + 1) * PIECE, positions) - part * PIECE
    count = tl.where(known, length * channels, 0).to(tl.float32)
    return count, tl.load(place, known, 0.0), tl.load(place + 1, known, 0.0)


@triton.jit
def statistics(
    cached_moments,
    fresh_moments,
    sample,
    group,
    groups,
    size,  # channels of a group
    boundary,  # channels of the cached tensor
    positions,
    eps,
    block: tl.constexpr,
):
    """Return the mean of one group over both tensors, and the inverse of its deviation."""
    of_cached = tl.minimum(tl.maximum(boundary - group * size, 0), size)
    old_count, old_mean, old_deviation = pieces_of(
        cached_moments, sample, group, groups, of_cached, positions, block
    )
    new_count, new_mean, new_deviation = pieces_of(
        fresh_moments, sample, group, groups, size - of_cached, positions, block
    )
    total = tl.sum(old_count) + tl.sum(new_count)
    mean = (tl.sum(old_count * old_mean) + tl.sum(new_count * new_mean)) / total
    old_delta, new_delta = old_mean - mean, new_mean - mean
    deviation = tl.sum(old_deviation + old_count * old_delta * old_delta)
    deviation += tl.sum(new_deviation + new_count * new_delta * new_delta)
    return mean, 1 / tl.sqrt(deviation / total + eps)


@triton.jit
def normalize_kernel(
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
    cached_c,
    cached_p,
    fresh_n,
    fresh_c,
    fresh_p,
    out_n,
    out_c,
    out_p,
    joined_n,
    joined_c,
    joined_p,
    boundary,  # channels of cached
    size,
    groups,
    eps,
    block_pieces: tl.constexpr,
    block_c: tl.constexpr,
    block_p: tl.constexpr,
):
    number, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tiles_p, tiles_c = tl.cdiv(positions, block_p), tl.cdiv(size, block_c)
    tile_p, tile_c = number % tiles_p, number // tiles_p % tiles_c
    group = number // tiles_p // tiles_c

    begin, end = group * size, (group + 1) * size
    mean, scale = statistics(
        cached_moments,
        fresh_moments,
        sample,
        group,
        groups,
        size,
        boundary,
        positions,
        eps,
        block_pieces,
    )

    channel = begin + tile_c * block_c + tl.arange(0, block_c)
    position = tile_p * block_p + tl.arange(0, block_p)
    in_group = channel < end
    at_c, at_p = channel.to(tl.int64), position.to(tl.int64)
    factor = tl.load(weight + at_c, in_group, 0.0).to(tl.float32) * scale
    shift = tl.load(bias + at_c, in_group, 0.0).to(tl.float32)
    known = in_group[:, None] & (position < positions)[None, :]
    old = known & (channel < boundary)[:, None]
    new = known & (channel >= boundary)[:, None]
    c, p = at_c[:, None], at_p[None, :]
    from_cached = tl.load(cached + sample * cached_n + c * cached_c + p * cached_p, old, 0.0)
    at_fresh = sample * fresh_n + (c - boundary) * fresh_c + p * fresh_p
    from_fresh = tl.load(fresh + at_fresh, new, 0.0)
    both = tl.where(old, from_cached, from_fresh)
    at_out = sample * out_n + c * out_c + p * out_p
    store_normalized(out + at_out, both, mean, factor[:, None], shift[:, None], known)
    if joined is not None:
        tl.store(joined + sample * joined_n + c * joined_c + p * joined_p, both, known)
