"""Finds the inputs of a graph to whose memory it writes, and lets it use copies of them."""

from collections.abc import Iterator

import torch
from torch import fx
from torch.export import ExportedProgram

from fxcache._torch import is_vmapped, returns_new_memory, same_memory, written_arguments
from fxcache.program import is_tensor, value_of


class Writes:
    """The nodes of a graph, and of its inner graphs, that write to tensors in place."""

    def __init__(self, exported: ExportedProgram) -> None:
        """Find them."""
        self._written = [
            (node, tensor)
            for module in exported.graph_module.modules()
            if isinstance(module, fx.GraphModule)
            for node in module.graph.nodes
            for tensor in written_arguments(node)
            if is_tensor(tensor)
        ]

    def to(self, tensor: fx.Node) -> Iterator[fx.Node]:
        """Yield those that write to the memory of ``tensor``, a node of the outer graph."""
        for node, written in self._written:
            if same_memory(value_of(written), value_of(tensor)) and may_be_view(written, tensor):
                yield node


def may_be_view(node: fx.Node, tensor: fx.Node) -> bool:
    """Return whether ``node``, whose value seems to share memory with ``tensor``, may do so.

    Values inside vmap all seem to share memory. There, only the graph tells.
    """
    outer = node.graph is tensor.graph
    if not outer and is_vmapped(value_of(node)):
        return False
    seen, level = set[fx.Node](), [node]
    while level:
        one = level.pop()
        if one is tensor or (one.op == "placeholder" and not outer):
            return True
        if one not in seen and not returns_new_memory(one.target):
            level += one.all_input_nodes
        seen.add(one)
    return False


def copy_first(placeholder: fx.Node) -> None:
    """Let the graph use a copy of an input."""
    users, graph = list(placeholder.users), placeholder.graph
    following = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(following):
        copied = graph.call_function(torch.ops.aten.clone.default, (placeholder,))
    copied.meta = dict(placeholder.meta)
    for user in users:
        user.replace_input_with(placeholder, copied)
