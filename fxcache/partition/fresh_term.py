"""Finds and computes the term of a linear map that comes from the fresh channels alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from fxcache.analysis.cost import op_name
from fxcache.partition.frontier import Frontier
from fxcache.program import Role, value_of

aten = torch.ops.aten

# Elementwise operators. Dropout is one in eval mode, in which all graphs are captured.
POINTWISE = frozenset({
    "_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "gelu", "relu", "sigmoid",
    "silu", "tanh", "to",
})  # fmt: skip
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
GROUPS = 6  # the position of the argument ``groups`` of a convolution


@dataclass(frozen=True, eq=False)
class FreshTerm:
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


def fresh_terms(frontier: Frontier, cached: fx.Node, join: fx.Node) -> Iterator[FreshTerm | None]:
    """The term of each path from ``cached`` through ``join``; None if no linear map ends it."""
    joined = joined_by(join) if op_name(join) == "cat" and not join.kwargs else []
    if len(joined) < 2 or joined.count(cached) != 1 or cached not in (joined[0], joined[-1]):
        yield None
        return
    dim = dim_of(join)
    total, size = (int(value_of(node).shape[dim]) for node in (join, cached))
    start, stop = (size, total) if cached is joined[0] else (0, total - size)
    yield from followed(FreshTerm(join, (), start, stop, {}), join, dim, total, frontier)


def followed(
    term: FreshTerm, before: fx.Node, dim: int, total: int, frontier: Frontier
) -> Iterator[FreshTerm | None]:
    """Extend ``term`` from ``before`` along each path to a linear map; None if there is no map."""
    for node in before.users:
        onward = replace(term, chain=(*term.chain, node))
        if is_map(node, before, dim) and only_weights(node, before, frontier):
            cost = frontier.costs.of([node])
            left = term.stop - term.start
            yield replace(onward, flops={k: v * left // total for k, v in cost.items() if v})
        elif op_name(node) in POINTWISE and node.all_input_nodes == [before]:
            yield from followed(onward, node, dim, total, frontier)
        elif op_name(node) == "group_norm" and dim == 1 and can_part(node, before, term, frontier):
            groups: Any = node.args[1]
            wider = to_whole_groups(onward, total // groups, total)
            if wider is None:
                yield None
            else:
                yield from followed(wider, node, dim, total, frontier)
        else:
            yield None


def can_part(norm: fx.Node, before: fx.Node, term: FreshTerm, frontier: Frontier) -> bool:
    """Whether ``norm`` can be applied to some of its groups alone.

    Only the first group normalisation on the path can: a second one may have other groups.
    """
    first = all(op_name(node) != "group_norm" for node in term.chain)
    return first and norm.args[0] is before and only_weights(norm, before, frontier)


def only_weights(node: fx.Node, before: fx.Node, frontier: Frontier) -> bool:
    """Whether all operands of ``node`` except ``before`` are weights or constants."""
    others = (source for source in node.all_input_nodes if source is not before)
    return not any(frontier.needs.on(source, role) for source in others for role in Role)


def to_whole_groups(term: FreshTerm, size: int, total: int) -> FreshTerm | None:
    """``term`` extended to whole groups; None if all channels would be fresh."""
    start, stop = term.start // size * size, -(-term.stop // size) * size
    return None if (start, stop) == (0, total) else replace(term, start=start, stop=stop)


def is_map(node: fx.Node, before: fx.Node, dim: int) -> bool:
    """Whether ``node`` is a linear map over all channels of ``before``."""
    name = op_name(node)
    if not node.args or node.args[0] is not before or node.all_input_nodes.count(before) != 1:
        return False
    if name in CONVOLUTIONS:
        return dim == 1 and node.args[GROUPS:] in ((), (1,))
    return name == "linear" and dim == int(value_of(before).dim()) - 1
