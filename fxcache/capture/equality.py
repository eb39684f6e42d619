"""Compares programs: two traces of one model may give the same graph."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from torch import fx

from fxcache.capture.randomness import same_constant
from fxcache.program import Program

COMPARED = frozenset(f.name for f in fields(Program)) - {"graph", "weights", "placeholders"}


class Value(NamedTuple):
    """The value of an earlier node, in place of the node."""

    number: int


def equal_programs(first: Program, second: Program) -> bool:
    """Return whether two programs call the same operators on the same weights, in the same order.

    The strides of values need not be the same.
    """
    if any(getattr(first, name) != getattr(second, name) for name in COMPARED):
        return False
    if list(described(first.graph)) != list(described(second.graph)):
        return False
    read = {str(node.target) for node in first.graph.find_nodes(op="get_attr")}
    return all(same_constant(first.weights[name], second.weights[name]) for name in read)


def described(graph: fx.Graph) -> Iterator[tuple[Any, ...]]:
    """Yield a description of each node that does not depend on the graph."""
    numbers = {node: Value(number) for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        arguments = fx.map_arg((node.args, node.kwargs), numbers.__getitem__)
        yield node.op, node.target, arguments
