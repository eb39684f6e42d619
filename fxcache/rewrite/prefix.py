"""The prefix: what a policy observes is computed first, and every variant continues from there."""

from collections.abc import Iterable, Set
from dataclasses import dataclass

import torch
from torch import fx

from fxcache.analysis.dependence import Dependence
from fxcache.partition.cut import CachePoint, SignalPoint
from fxcache.program import Program, copy_graph, is_tensor, output_node, remove_dead


@dataclass(frozen=True, eq=False)
class Prefix:
    """The part of a program that computes ``signal``; ``shared`` is what the rest reads of it."""

    signal: SignalPoint
    shared: tuple[fx.Node, ...]

    def graph(self, program: Program) -> fx.Graph:
        """``f(inputs) -> (signal, *shared)``."""
        graph, copied = copy_graph(program.graph)
        value = copied[self.signal.value]
        output = output_node(graph)
        if self.signal.shortcut is not None:
            with graph.inserting_before(value.next):
                base = self.signal.shortcut.insert(graph, copied)
                difference = graph.call_function(torch.ops.aten.sub.Tensor, (value, base))
            difference.meta = dict(value.meta)
            value = difference
        output.args = ((value, *(copied[node] for node in self.shared)),)
        remove_dead(graph)
        return graph

    def continue_in(self, graph: fx.Graph, copied: dict[fx.Node, fx.Node]) -> None:
        """Take ``shared`` as inputs, ``shared_0`` and so on; what only they needed is left dead."""
        after_inputs = [n for n in graph.nodes if n.op == "placeholder"][-1].next
        for index, node in enumerate(self.shared):
            with graph.inserting_before(after_inputs):
                given = graph.placeholder(f"shared_{index}")
            given.meta = dict(node.meta)
            copied[node].replace_all_uses_with(given)
            copied[node] = given


def prefix_of(needs: Dependence, signal: SignalPoint, points: Iterable[CachePoint]) -> Prefix:
    """The prefix that ends where ``signal`` is known; ``points`` are cached after it."""
    mask, bases = 0, {leaf for point in points for leaf in point.needed}
    for node in signal.needed:
        mask |= needs.ancestors(node)
    inside = set(needs.members(mask))
    computed = (n for n in inside if n.op == "call_function" and is_tensor(n))
    shared = [n for n in computed if n in bases or read_outside(n, inside)]
    return Prefix(signal, tuple(sorted(shared, key=needs.index.__getitem__)))


def read_outside(node: fx.Node, inside: Set[fx.Node]) -> bool:
    """Whether something outside reads ``node``, or pieces of it: only tensors can be handed on."""
    return any(
        user not in inside or (not is_tensor(user) and read_outside(user, inside))
        for user in node.users
    )
