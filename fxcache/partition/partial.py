"""Partial evaluation: caches the result of a linear map instead of a part of its input.

``conv(cat([cached, fresh]), W)`` equals ``conv(cached, W₁) + conv(fresh, W₂)``. The first term is
the same at every reuse step, so it can be cached in place of ``cached``. The second term is
computed afresh. The result is exact except for the order of summation.

Between the concatenation and the map there may be operators that treat each channel, or each group
of channels, independently: activations and group normalisation. The cache point moves from the
concatenated value to the result of the map. The cached tensor is the difference between the result
and the term of the fresh channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from fxcache.analysis.cost import op_name
from fxcache.partition.cut import CachePoint
from fxcache.partition.frontier import Frontier, Points
from fxcache.program import Role, value_of

aten = torch.ops.aten

# Elementwise operators. Dropout is one in eval mode, in which all graphs are captured.
POINTWISE = frozenset({
    "_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "gelu", "relu", "sigmoid",
    "silu", "tanh", "to",
})  # fmt: skip
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
GROUPS = 6  # the position of the argument ``groups`` of a convolution
REUSES = 2  # reuse steps for each refresh, at the default interval
# The FLOPs that a GPU computes in the time to move one byte: 295 on H100, 156 on A100 (bf16).
FLOPS_PER_BYTE = 300


@dataclass(frozen=True, eq=False)
class Rest:
    """The part of a linear map's result that comes from the fresh channels.

    Attributes:
        join: The concatenation of cached and fresh channels.
        chain: The nodes after the concatenation, up to and including the map.
        start: The first fresh channel of the concatenation.
        stop: The end of the fresh channels (exclusive).
        flops: FLOPs of the map for the fresh channels, by kind.
    """

    join: fx.Node
    chain: tuple[fx.Node, ...]
    start: int
    stop: int
    flops: Mapping[str, int]

    @property
    def end(self) -> fx.Node:
        """The linear map."""
        return self.chain[-1]

    @property
    def pieces(self) -> list[tuple[fx.Node, int, int]]:
        """Each concatenated tensor with fresh channels, and the range of these channels in it."""
        ranges, offset, dim = [], 0, dim_of(self.join)
        for joined in joined_by(self.join):
            size = int(value_of(joined).shape[dim])
            begin, end = max(self.start - offset, 0), min(self.stop - offset, size)
            if begin < end:
                ranges.append((joined, begin, end))
            offset += size
        return ranges

    @property
    def leaves(self) -> tuple[fx.Node, ...]:
        """The nodes that this part is computed from: the fresh tensors and the weights."""
        inside = {self.join, *self.chain}
        sources = [source for node in self.chain for source in node.all_input_nodes]
        pieces = [joined for joined, *_ in self.pieces]
        return tuple(dict.fromkeys(n for n in [*pieces, *sources] if n not in inside))

    def insert(self, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Insert the computation for the fresh channels into ``graph`` at its insertion point.

        Args:
            graph: The graph of a variant.
            copied: The node in ``graph`` for each of the leaves.
        """
        dim = dim_of(self.join)
        parts = [narrowed(graph, copied[node], dim, *taken) for node, *taken in self.pieces]
        value = parts[0] if len(parts) == 1 else call(graph, self.join, (parts, dim))
        for node in self.chain:
            value = call(graph, node, self._arguments(graph, node, value, copied))
        return value

    def _arguments(
        self, graph: fx.Graph, node: fx.Node, value: fx.Node, copied: Mapping[fx.Node, fx.Node]
    ) -> tuple[Any, ...]:
        """The arguments of ``node`` for ``value``, which has the fresh channels alone."""
        arguments: Any = fx.node.map_arg(node.args[1:], lambda n: copied[n])
        taken = self.start, self.stop
        if node is self.end:
            weight, *others = arguments
            return (value, narrowed(graph, weight, 1, *taken), *others)
        if op_name(node) == "group_norm":
            groups, *affine = arguments
            size = value_of(node).shape[1] // groups
            weights = (n and narrowed(graph, n, 0, *taken) for n in affine[:2])
            return (value, (self.stop - self.start) // size, *weights, *affine[2:])
        return (value, *arguments)


def call(graph: fx.Graph, like: fx.Node, arguments: tuple[Any, ...]) -> fx.Node:
    """A node with the operator of ``like`` and other arguments, and its fake value."""
    made = graph.call_function(like.target, arguments, like.kwargs)  # type: ignore[arg-type]
    values = fx.node.map_arg(arguments, value_of)
    made.meta = {**like.meta, "val": like.target(*values, **like.kwargs)}  # type: ignore[operator]
    return made


def narrowed(graph: fx.Graph, node: fx.Node, dim: int, start: int, stop: int) -> fx.Node:
    """A slice of ``node`` in dimension ``dim``; ``node`` itself if the slice is all of it."""
    value: Tensor = value_of(node)
    if (start, stop) == (0, value.shape[dim]):
        return node
    made = graph.call_function(aten.slice.Tensor, (node, dim, start, stop))
    made.meta = {**node.meta, "val": value.narrow(dim, start, stop - start)}
    return made


def dim_of(join: fx.Node) -> int:
    """The dimension of a concatenation, as a non-negative index."""
    dim = join.args[1] if len(join.args) > 1 else 0
    assert isinstance(dim, int)
    return dim % value_of(join).dim()


def joined_by(join: fx.Node) -> list[fx.Node]:
    """The operands of a concatenation, in order."""
    (joined, *_) = join.args
    return list(joined)  # type: ignore[arg-type]


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
        replacement = split(frontier, point)
        if replacement == (point,) or overlaps(replacement, point, (*others, *elsewhere)):
            continue
        if pays(frontier, (*points, *elsewhere), (*others, *replacement, *elsewhere)):
            points = (*others, *replacement)
    return tuple(sorted(points, key=lambda p: frontier.needs.index[p.value]))


def overlaps(replacement: Points, point: CachePoint, others: Points) -> bool:
    """Whether the replacement of ``point`` includes, or passes through, another cached value."""
    passed = {new.value for new in replacement if new is not point}
    for new in replacement:
        if isinstance(new.shortcut, Rest):
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
    ways = [rest for user in point.value.users for rest in rests(frontier, point.value, user)]
    maps = [rest for rest in ways if rest is not None]
    if not maps:
        return (point,)
    still_read = None in ways or any(point.value in rest.leaves for rest in maps)
    return (*([point] if still_read else []), *(CachePoint(rest.end, rest) for rest in maps))


def rests(frontier: Frontier, cached: fx.Node, join: fx.Node) -> Iterator[Rest | None]:
    """The ``Rest`` of each path from ``cached`` through ``join``; None if no linear map ends it."""
    joined = joined_by(join) if op_name(join) == "cat" and not join.kwargs else []
    if len(joined) < 2 or joined.count(cached) != 1 or cached not in (joined[0], joined[-1]):
        yield None
        return
    dim = dim_of(join)
    total, size = (int(value_of(node).shape[dim]) for node in (join, cached))
    start, stop = (size, total) if cached is joined[0] else (0, total - size)
    yield from followed(Rest(join, (), start, stop, {}), join, dim, total, frontier)


def followed(
    rest: Rest, before: fx.Node, dim: int, total: int, frontier: Frontier
) -> Iterator[Rest | None]:
    """Extend ``rest`` from ``before`` along each path to a linear map; None if there is no map."""
    for node in before.users:
        onward = replace(rest, chain=(*rest.chain, node))
        if is_map(node, before, dim) and only_weights(node, before, frontier):
            cost = frontier.costs.of([node])
            left = rest.stop - rest.start
            yield replace(onward, flops={k: v * left // total for k, v in cost.items() if v})
        elif op_name(node) in POINTWISE and node.all_input_nodes == [before]:
            yield from followed(onward, node, dim, total, frontier)
        elif op_name(node) == "group_norm" and dim == 1 and can_part(node, before, rest, frontier):
            groups: Any = node.args[1]
            wider = to_whole_groups(onward, total // groups, total)
            if wider is None:
                yield None
            else:
                yield from followed(wider, node, dim, total, frontier)
        else:
            yield None


def can_part(norm: fx.Node, before: fx.Node, rest: Rest, frontier: Frontier) -> bool:
    """Whether ``norm`` can be applied to some of its groups alone.

    Only the first group normalisation on the path can: a second one may have other groups.
    """
    first = all(op_name(node) != "group_norm" for node in rest.chain)
    return first and norm.args[0] is before and only_weights(norm, before, frontier)


def only_weights(node: fx.Node, before: fx.Node, frontier: Frontier) -> bool:
    """Whether all operands of ``node`` except ``before`` are weights or constants."""
    others = (source for source in node.all_input_nodes if source is not before)
    return not any(frontier.needs.on(source, role) for source in others for role in Role)


def to_whole_groups(rest: Rest, size: int, total: int) -> Rest | None:
    """``rest`` extended to whole groups; None if all channels would be fresh."""
    start, stop = rest.start // size * size, -(-rest.stop // size) * size
    return None if (start, stop) == (0, total) else replace(rest, start=start, stop=stop)


def is_map(node: fx.Node, before: fx.Node, dim: int) -> bool:
    """Whether ``node`` is a linear map over all channels of ``before``."""
    name = op_name(node)
    if not node.args or node.args[0] is not before or node.all_input_nodes.count(before) != 1:
        return False
    if name in CONVOLUTIONS:
        return dim == 1 and node.args[GROUPS:] in ((), (1,))
    return name == "linear" and dim == int(value_of(before).dim()) - 1
