"""Compares programs: two traces of one model may give the same graph."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

from torch import fx

from fxcache.capture.randomness import same_constant
from fxcache.opaque import OpaqueCall, call_of
from fxcache.program import Program

COMPARED = frozenset(f.name for f in fields(Program)) - {
    *("graph", "weights", "placeholders"),
    "opaque",  # the graph tells
}


class Value(NamedTuple):
    """The value of an earlier node, in place of the node."""

    number: int


class Called:
    """A call of a submodule as it is. It equals a call of another trace that does the same."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, call: OpaqueCall) -> None:
        self._call = call

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Called):
            return False
        first, second = self._call, other._call
        return (
            first.module is second.module
            and first.arguments.agrees(second.arguments)
            and first.result.agrees(second.result)
            and first.tensors == second.tensors
        )


def equal_programs(first: Program, second: Program) -> bool:
    """Return whether two programs call the same operators on the same weights, in the same order.

    The strides of values need not be the same.
    """
    if any(getattr(first, name) != getattr(second, name) for name in COMPARED):
        return False
    return equal_graphs((first.graph, first.weights), (second.graph, second.weights))


Graph = tuple[fx.Graph, Mapping[str, Any]]


def equal_graphs(first: Graph, second: Graph) -> bool:
    """Return whether two graphs are the same. Each comes with its attributes by name."""
    if list(described(first[0])) != list(described(second[0])):
        return False
    names = {str(node.target) for node in first[0].find_nodes(op="get_attr")}
    return all(equal_attributes(first[1][name], second[1][name]) for name in names)


def equal_attributes(first: Any, second: Any) -> bool:
    """Return whether two graphs inside of others are the same, or two constants."""
    if isinstance(first, fx.GraphModule) and isinstance(second, fx.GraphModule):
        return equal_graphs(*((m.graph, attributes_of(m)) for m in (first, second)))
    return same_constant(first, second)


def attributes_of(module: fx.GraphModule) -> dict[str, Any]:
    """Return the attributes that a graph reads, by path."""
    paths = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    return {path: attrgetter(path)(module) for path in paths}


def described(graph: fx.Graph) -> Iterator[tuple[Any, ...]]:
    """Yield a description of each node that does not depend on the graph."""
    numbers = {node: Value(number) for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), numbers.__getitem__)
        if call := call_of(node):
            args = (Called(call), *args[1:])
        yield node.op, node.target, args, kwargs
