"""The bytes that the operators of a graph read and write, if each runs on its own."""

import operator

from torch import Tensor, fx

from fxcache._torch import hint_of, returns_view


def bytes_moved(graph: fx.Graph) -> int:
    """Return the bytes that all operators read and write. Views move none.

    Each operator reads each of its inputs once and writes its results once, as in eager mode. The
    graph is not run: sizes come from its recorded values.
    """
    return sum(node_bytes(node) for node in graph.nodes if moves_bytes(node))


def moves_bytes(node: fx.Node) -> bool:
    """Return whether the operator reads or writes memory."""
    if node.op != "call_function" or node.target is operator.getitem:
        return False
    return not returns_view(node.target)


def node_bytes(node: fx.Node) -> int:
    """Return the bytes of the inputs of ``node`` and of its results."""
    return sum(map(result_bytes, (*node.all_input_nodes, node)))


def result_bytes(node: fx.Node) -> int:
    """Return the bytes of the tensors that ``node`` returns; 0 if it has no recorded value."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return sum(size_in_bytes(v) for v in values if isinstance(v, Tensor))


def size_in_bytes(tensor: Tensor) -> int:
    """Return the bytes of ``tensor``. Sizes that vary count as at capture."""
    return (hint_of(tensor.numel()) or 0) * tensor.element_size()
