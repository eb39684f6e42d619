"""Partial evaluation: caches the result of a linear map instead of a part of its input.

``conv(cat([cached, fresh]), W)`` equals ``conv(cached, W₁) + conv(fresh, W₂)``. The first term is
the same at every reuse step, so it can be cached in place of ``cached``. The second term is
computed afresh. The result is exact except for the order of summation.

Between the concatenation and the map there may be operators that treat each channel, or each group
of channels, independently: activations and group normalisation. The cache point moves from the
concatenated value to the result of the map. The cached tensor is the difference between the result
and the term of the fresh channels.
"""

from collections.abc import Mapping

from fxcache.partition.cut import CachePoint
from fxcache.partition.fresh_term import FreshTerm, fresh_terms
from fxcache.partition.frontier import Frontier, Points

REUSES = 2  # reuse steps for each refresh, at the default interval
# The FLOPs that a GPU computes in the time to move one byte: 295 on H100, 156 on A100 (bf16).
FLOPS_PER_BYTE = 300


def partially_evaluated_groups(
    frontier: Frontier, groups: Mapping[str, Points]
) -> Mapping[str, Points]:
    """Partially evaluate each group of cache points that does not overlap another group."""
    new_groups = dict(groups)
    for name, points in groups.items():
        elsewhere = (p for other, group in new_groups.items() if other != name for p in group)
        new_groups[name] = partially_evaluated(frontier, points, tuple(elsewhere))
    return new_groups


def partially_evaluated(frontier: Frontier, points: Points, elsewhere: Points = ()) -> Points:
    """Move each cache point behind the linear maps that read it, where that pays.

    It pays if the FLOPs saved in ``REUSES`` reuse steps, minus the additional FLOPs of the refresh,
    exceed ``FLOPS_PER_BYTE`` for each additional byte that these steps read.

    Args:
        frontier: The possible cuts of the program.
        points: The cache points of one group.
        elsewhere: The cache points of all other groups. A point whose replacement would overlap
            one of them is not moved.
    """
    for point in points:
        others = tuple(p for p in points if p is not point)
        replacement = (point,) if point.start else split(frontier, point)
        if replacement == (point,) or overlaps(replacement, point, (*others, *elsewhere)):
            continue
        if pays(frontier, (*points, *elsewhere), (*others, *replacement, *elsewhere)):
            points = (*others, *replacement)
    return tuple(sorted(points, key=lambda p: frontier.needs.index[p.value]))


def overlaps(replacement: Points, point: CachePoint, others: Points) -> bool:
    """Whether the replacement of ``point`` includes, or passes through, another cached value."""
    passed = {new.value for new in replacement if new is not point}
    for new in replacement:
        if isinstance(new.shortcut, FreshTerm):
            passed |= {*new.shortcut.chain, *new.shortcut.leaves}
    return any(other.value in passed or passed & set(other.needed) for other in others)


def pays(frontier: Frontier, before: Points, after: Points) -> bool:
    """Whether the saved FLOPs outweigh the additional FLOPs of the refresh and the added bytes."""
    old, new = (frontier.price(points, "") for points in (before, after))
    refresh_flops = sum(sum(point.flops.values()) for point in set(after) - set(before))
    bytes_added = max(new.cache_bytes - old.cache_bytes, 0)
    saved_flops = REUSES * (old.reuse_flops - new.reuse_flops) - refresh_flops
    return saved_flops > REUSES * FLOPS_PER_BYTE * bytes_added


def split(frontier: Frontier, point: CachePoint) -> Points:
    """The cache points that replace ``point``, including itself if something still reads it."""
    if point.shortcut is not None:
        return (point,)
    ways = [term for user in point.value.users for term in fresh_terms(frontier, point.value, user)]
    maps = [term for term in ways if term is not None]
    if not maps:
        return (point,)
    still_read = None in ways or any(point.value in term.leaves for term in maps)
    return (*([point] if still_read else []), *(CachePoint(term.end, term) for term in maps))
