"""Residual streams: values that pass through a region, and to which its blocks only add."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fxcache.analysis.cost import op_name
from fxcache.analysis.dependence import Dependence
from fxcache.program import has_unknown_size, value_of

# Operators that only move, cast or clamp values.
MOVES = frozenset({
    "_to_copy", "_unsafe_view", "alias", "cat", "chunk", "clamp", "clip", "clone",
    "constant_pad_nd", "contiguous", "copy", "detach", "detach_", "expand", "expand_as", "flatten",
    "flip", "gather", "index", "index_put", "index_select", "movedim", "nan_to_num", "narrow",
    "new_zeros", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape", "roll",
    "select", "select_scatter", "slice", "slice_scatter", "split", "split_with_sizes", "squeeze",
    "stack", "swapaxes", "t", "tile", "to", "transpose", "type_as", "unbind", "unflatten",
    "unsqueeze", "view", "view_as", "where", "zeros_like",
})  # fmt: skip
ADDS = frozenset({"add", "sub", "addcmul"})
SCALES = frozenset({"mul", "div"})


@dataclass(frozen=True, eq=False)
class Shortcut:
    """The computation of a value without the residual branches of a region.

    ``x + attention(x)`` becomes ``x``. ``cat([text + f(text), image + g(image)])`` becomes
    ``cat([text, image])``.

    Attributes:
        end: The value.
        nodes: The nodes to compute for the shortcut, in graph order.
        passed: The operand that replaces each node, such as the stream for an addition.
        leaves: The values from outside the region that the shortcut reads.
        exact: Whether the shortcut equals the value, because nothing is added on the way.
    """

    end: fx.Node
    nodes: tuple[fx.Node, ...]
    passed: Mapping[fx.Node, fx.Node]
    leaves: tuple[fx.Node, ...]
    exact: bool = False

    @property
    def flops(self) -> Mapping[str, int]:
        """Empty: a shortcut only moves, concatenates and casts values."""
        return {}

    def insert(self, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Insert the shortcut into ``graph`` at its insertion point.

        Args:
            graph: The graph of a variant.
            copied: The node in ``graph`` for each of the leaves.
        """
        made = {leaf: copied[leaf] for leaf in self.leaves}
        for node in self.nodes:
            made[node] = graph.node_copy(node, lambda n: made[self.onward(n)])
        return made[self.onward(self.end)]

    def onward(self, node: fx.Node) -> fx.Node:
        """Return the node that replaces ``node`` in the shortcut; ``node`` itself if none does."""
        return followed(node, self.passed)


def followed(node: fx.Node, passed: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """Follow ``passed`` from ``node`` to a node that nothing replaces."""
    while node in passed:
        node = passed[node]
    return node


def slice_of(node: fx.Node, source: Tensor) -> tuple[int, int, int] | None:
    """Return the dimension, start and end of a slice of ``source``; None if its step is not 1."""
    options: list[Any] = [*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :]]
    dim, start, end, step = options
    length = source.shape[dim]
    taken = range(length)[start:end]
    return (dim % source.dim(), taken.start, taken.stop) if step == 1 else None


class Streams:
    """The residual streams through one region of a program.

    Attributes:
        inside: The nodes of the region.
        passed: The operand that a shortcut uses in place of each of these nodes.
        carried: The nodes that belong to a stream.
        added: The additions of a residual branch to a stream.
        changed: The additions, and slices of their results, that a shortcut replaces.
    """

    def __init__(self, needs: Dependence, region: int):
        self.inside = frozenset(needs.members(region))
        self.passed: dict[fx.Node, fx.Node] = {}
        self.carried: set[fx.Node] = set()
        self.added: set[fx.Node] = set()
        self.changed: set[fx.Node] = set()
        for node in needs.nodes:
            if node in self.inside and self._carries(node):
                self.carried.add(node)

    def shortcut(self, value: fx.Node) -> Shortcut | None:
        """Return the shortcut for ``value``; None if ``value`` does not belong to a stream."""
        if value not in self.carried:
            return None
        nodes: set[fx.Node] = set()
        leaves: dict[fx.Node, None] = {}
        stack, exact = [value], True
        while stack:
            node = stack.pop()
            exact &= node not in self.changed
            if node not in self.inside:
                leaves[node] = None
            elif node in self.passed:
                stack.append(self.passed[node])
            elif node not in nodes:
                nodes.add(node)
                stack.extend(node.all_input_nodes)
        ordered = tuple(n for n in value.graph.nodes if n in nodes)
        return Shortcut(value, ordered, self.passed, tuple(leaves), exact)

    def branch(self, addition: fx.Node) -> fx.Node | None:
        """The value that ``addition`` adds to its stream; None if it is not a single node."""
        others = [n for n in addition.all_input_nodes if n is not self.passed.get(addition)]
        return others[0] if addition in self.added and len(others) == 1 else None

    def _carries(self, node: fx.Node) -> bool:
        """Whether ``node`` belongs to a stream. Records the operand that a shortcut keeps."""
        name = op_name(node)
        sources = [n for n in node.all_input_nodes if n in self.inside]
        carried = [n for n in sources if n in self.carried]
        if len(carried) == len(sources) and (name in MOVES or node.target is operator.getitem):
            if (piece := self._piece(node)) is not None:
                self.passed[node] = piece
                if self._changed_before(node):
                    self.changed.add(node)
            return True
        if len(carried) == len(sources) == 1 and name in SCALES:
            return True
        if name not in ADDS or not node.args:
            return False
        if len(carried) == len(sources) and name != "addcmul":
            return True
        onward = [n for n in node.args[: 2 if name == "add" else 1] if self._goes_on(n, node)]
        if len(onward) == 1:
            self.passed[node] = onward[0]  # type: ignore[assignment]
            self.added.add(node)
            self.changed.add(node)
        return len(onward) == 1

    def _piece(self, node: fx.Node) -> fx.Node | None:
        """The operand of a concatenation that ``node`` slices out again; None if there is none."""
        if op_name(node) != "slice":
            return None
        joined = followed(node.all_input_nodes[0], self.passed)
        if op_name(joined) != "cat" or joined not in self.inside:
            return None
        pieces, dim, *_ = (*joined.args, 0)
        start, rank = 0, value_of(joined).dim()
        for piece in joined.all_input_nodes if pieces == joined.all_input_nodes else ():
            end = start + value_of(piece).shape[dim]
            if slice_of(node, value_of(joined)) == (dim % rank, start, end):
                return piece
            start = end
        return None

    def _changed_before(self, piece: fx.Node) -> bool:
        """Whether a branch is added between a concatenation and the slice ``piece`` of it."""
        (node,) = piece.all_input_nodes
        while node in self.passed:
            if node in self.changed:
                return True
            node = self.passed[node]
        return False

    def _goes_on(self, operand: object, addition: fx.Node) -> bool:
        """Return whether ``operand`` is the stream that ``addition`` adds to."""
        if not isinstance(operand, fx.Node) or operand.op == "get_attr":
            return False
        if operand in self.inside and operand not in self.carried:
            return False
        value, total = value_of(operand), value_of(addition)
        return isinstance(value, Tensor) and same_kind(value, total)


def same_kind(first: Tensor, second: Tensor) -> bool:
    """Return whether two recorded values have the same dtype and shape.

    A data-dependent size is compared as a symbol, because a comparison of sizes would need its
    value.
    """
    if has_unknown_size(first) or has_unknown_size(second):
        same = list(map(str, first.shape)) == list(map(str, second.shape))
    else:
        same = first.shape == second.shape
    return same and first.dtype == second.dtype
