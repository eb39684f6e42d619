"""Partial evaluation against the cache: linear maps of what joins a cached value and a fresh one.

``conv(cat([cached, fresh]), W)`` is ``conv(cached, W₁) + conv(fresh, W₂)``, and the first term is
the same at every reuse step. So is its share of what lies between and treats channels, or groups
of them, by themselves: activations, normalisation by groups. A cut through the cached value becomes
one through the results of those maps. What is cached of a result is what it exceeds
``conv(fresh, W₂)`` by, which a reuse step computes afresh: exact but for the order of summation.
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

# These treat every value by itself; so does dropout in eval mode, in which all graphs are captured.
POINTWISE = frozenset({
    "_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "gelu", "relu", "sigmoid",
    "silu", "tanh", "to",
})  # fmt: skip
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
GROUPS = 6  # the argument of a convolution that says in how many it works
REUSES = 2  # for each refresh, at the default interval
FLOPS_PER_BYTE = 300  # that a GPU computes while it moves a byte: 295 on H100, 156 on A100 (bf16)


@dataclass(frozen=True, eq=False)
class Rest:
    """The share of a linear map's result that comes from channels which are not cached.

    ``join``: the concatenation; ``chain``: from there on, up to the map. Of the joined channels
    those from ``start`` to ``stop`` are left. ``flops`` of the map on these, by kind.
    """

    join: fx.Node
    chain: tuple[fx.Node, ...]
    start: int
    stop: int
    flops: Mapping[str, int]

    @property
    def end(self) -> fx.Node:
        return self.chain[-1]

    @property
    def pieces(self) -> list[tuple[fx.Node, int, int]]:
        """The joined tensors that are left, and from which to which of their channels."""
        found, offset, dim = [], 0, dim_of(self.join)
        for joined in joined_by(self.join):
            size = int(value_of(joined).shape[dim])
            begin, end = max(self.start - offset, 0), min(self.stop - offset, size)
            if begin < end:
                found.append((joined, begin, end))
            offset += size
        return found

    @property
    def leaves(self) -> tuple[fx.Node, ...]:
        """What it is computed from: the pieces, and the weights on the way."""
        inside = {self.join, *self.chain}
        sources = [source for node in self.chain for source in node.all_input_nodes]
        pieces = [joined for joined, *_ in self.pieces]
        return tuple(dict.fromkeys(n for n in [*pieces, *sources] if n not in inside))

    def insert(self, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Compute it in ``graph``, at its insertion point; ``copied`` has the leaves."""
        dim = dim_of(self.join)
        parts = [narrowed(graph, copied[node], dim, *taken) for node, *taken in self.pieces]
        value = parts[0] if len(parts) == 1 else call(graph, self.join, (parts, dim))
        for node in self.chain:
            value = call(graph, node, self._arguments(graph, node, value, copied))
        return value

    def _arguments(
        self, graph: fx.Graph, node: fx.Node, value: fx.Node, copied: Mapping[fx.Node, fx.Node]
    ) -> tuple[Any, ...]:
        """Those of ``node``, for ``value`` in place of all channels."""
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
    """The op of ``like`` on other ``arguments``, with the value that it has for these."""
    made = graph.call_function(like.target, arguments, like.kwargs)  # type: ignore[arg-type]
    values = fx.node.map_arg(arguments, value_of)
    made.meta = {**like.meta, "val": like.target(*values, **like.kwargs)}  # type: ignore[operator]
    return made


def narrowed(graph: fx.Graph, node: fx.Node, dim: int, start: int, stop: int) -> fx.Node:
    """``node`` from ``start`` to ``stop`` of ``dim``; itself where that is all."""
    value: Tensor = value_of(node)
    if (start, stop) == (0, value.shape[dim]):
        return node
    made = graph.call_function(aten.slice.Tensor, (node, dim, start, stop))
    made.meta = {**node.meta, "val": value.narrow(dim, start, stop - start)}
    return made


def dim_of(join: fx.Node) -> int:
    """The dimension that a concatenation joins, counted from the first."""
    dim = join.args[1] if len(join.args) > 1 else 0
    assert isinstance(dim, int)
    return dim % value_of(join).dim()


def joined_by(join: fx.Node) -> list[fx.Node]:
    """What a concatenation joins, in order."""
    (joined, *_) = join.args
    return list(joined)  # type: ignore[arg-type]


def partially_evaluated_groups(
    frontier: Frontier, groups: Mapping[str, Points]
) -> Mapping[str, Points]:
    """``groups`` of points, each partially evaluated where it meets none of another."""
    found = dict(groups)
    for name, points in groups.items():
        elsewhere = (p for other, held in found.items() if other != name for p in held)
        found[name] = partially_evaluated(frontier, points, tuple(elsewhere))
    return found


def partially_evaluated(frontier: Frontier, points: Points, elsewhere: Points = ()) -> Points:
    """``points``, those replaced whose share of linear maps is worth caching instead.

    Worth it: the FLOPs that are saved in ``REUSES`` reuse steps, less what the refresh computes
    besides, exceed ``FLOPS_PER_BYTE`` for each byte more that these steps read. ``elsewhere``: what
    else is cached; a share that meets any of it is left as it is.
    """
    for point in points:
        others = tuple(p for p in points if p is not point)
        found = split(frontier, point)
        if found == (point,) or meets(found, point, (*others, *elsewhere)):
            continue
        if pays(frontier, (*points, *elsewhere), (*others, *found, *elsewhere)):
            points = (*others, *found)
    return tuple(sorted(points, key=lambda p: frontier.needs.index[p.value]))


def meets(found: Points, point: CachePoint, others: Points) -> bool:
    """Whether what takes the place of ``point`` is, or passes through, anything else cached."""
    passed = {found_point.value for found_point in found if found_point is not point}
    for found_point in found:
        if isinstance(found_point.shortcut, Rest):
            passed |= {*found_point.shortcut.chain, *found_point.shortcut.leaves}
    return any(other.value in passed or passed & set(other.needed) for other in others)


def pays(frontier: Frontier, before: Points, after: Points) -> bool:
    """Whether reuse steps gain more FLOPs than the refresh loses, and more than bytes cost."""
    old, new = (frontier.price(points, "") for points in (before, after))
    more = sum(sum(point.flops.values()) for point in set(after) - set(before))
    bytes_added = max(new.cache_bytes - old.cache_bytes, 0)
    gained = REUSES * (old.reuse_flops - new.reuse_flops) - more
    return gained > REUSES * FLOPS_PER_BYTE * bytes_added


def split(frontier: Frontier, point: CachePoint) -> Points:
    """The points that take the place of ``point``; itself among them where it is still read."""
    if point.shortcut is not None:
        return (point,)
    found = [rest for user in point.value.users for rest in rests(frontier, point.value, user)]
    known = [rest for rest in found if rest is not None]
    if not known:
        return (point,)
    read = None in found or any(point.value in rest.leaves for rest in known)
    return (*([point] if read else []), *(CachePoint(rest.end, rest) for rest in known))


def rests(frontier: Frontier, cached: fx.Node, join: fx.Node) -> Iterator[Rest | None]:
    """For each way from ``cached`` through ``join``: the rest of a linear map, or None."""
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
    """From ``before`` on, to all linear maps; None for each way that ends otherwise."""
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
    """Whether ``norm`` treats whole groups alone: one before it would have had other groups."""
    first = all(op_name(node) != "group_norm" for node in rest.chain)
    return first and norm.args[0] is before and only_weights(norm, before, frontier)


def only_weights(node: fx.Node, before: fx.Node, frontier: Frontier) -> bool:
    """Whether all else that ``node`` reads is the same at every step."""
    others = (source for source in node.all_input_nodes if source is not before)
    return not any(frontier.needs.on(source, role) for source in others for role in Role)


def to_whole_groups(rest: Rest, size: int, total: int) -> Rest | None:
    """``rest`` with the group that lies across its border; None where that leaves nothing."""
    start, stop = rest.start // size * size, -(-rest.stop // size) * size
    return None if (start, stop) == (0, total) else replace(rest, start=start, stop=stop)


def is_map(node: fx.Node, before: fx.Node, dim: int) -> bool:
    """Whether ``node`` maps the channels of ``before``, all together, by weights."""
    name = op_name(node)
    if not node.args or node.args[0] is not before or node.all_input_nodes.count(before) != 1:
        return False
    if name in CONVOLUTIONS:
        return dim == 1 and node.args[GROUPS:] in ((), (1,))
    return name == "linear" and dim == int(value_of(before).dim()) - 1
