"""The prefix: what a policy observes is computed first, and every variant continues from there."""

from collections.abc import Iterable, Set
from dataclasses import dataclass

import torch
from torch import fx

from fxcache.analysis.dependence import Dependence
from fxcache.partition.cut import CachePoint, SignalPoint
from fxcache.program import Program, copy_graph, is_tensor
from fxcache.rewrite.hoist import GIVEN, SHARED, give, returning


@dataclass(frozen=True, eq=False)
class Prefix:
    """The part of a program that computes ``signal``; ``shared`` is what the rest reads of it."""

    signal: SignalPoint
    shared: tuple[fx.Node, ...]

    def graph(self, program: Program, hoisted: Iterable[fx.Node] = ()) -> fx.Graph:
        """``f(inputs, *hoisted) -> (signal, *shared)``."""
        graph, copied = copy_graph(program.graph)
        give(graph, hoisted, GIVEN, copied)
        value = copied[self.signal.value]
        if self.signal.shortcut is not None:
            with graph.inserting_before(value.next):
                base = self.signal.shortcut.insert(graph, copied)
                difference = graph.call_function(torch.ops.aten.sub.Tensor, (value, base))
            difference.meta = dict(value.meta)
            value = difference
        return returning(graph, [value, *(copied[node] for node in self.shared)])

    def continue_in(self, graph: fx.Graph, copied: dict[fx.Node, fx.Node]) -> None:
        """Take ``shared`` as inputs, ``shared_0`` and so on; what only they needed is left dead."""
        give(graph, self.shared, SHARED, copied)


def prefix_of(
    needs: Dependence,
    signal: SignalPoint,
    points: Iterable[CachePoint],
    hoisted: Iterable[fx.Node] = (),
) -> Prefix:
    """The prefix that ends where ``signal`` is known; ``points`` are cached after it.

    ``hoisted``: what is given to it, and to what continues from it.
    """
    bases = {leaf for point in points for leaf in point.needed}
    inside = set(needs.live_without(dict.fromkeys(hoisted, ()), signal.needed))
    computed = (n for n in inside if n.op == "call_function" and is_tensor(n))
    shared = [n for n in computed if n in bases or read_outside(n, inside)]
    return Prefix(signal, tuple(sorted(shared, key=needs.index.__getitem__)))


def read_outside(node: fx.Node, inside: Set[fx.Node]) -> bool:
    """Whether something outside reads ``node``, or pieces of it: only tensors can be handed on."""
    return any(
        user not in inside or (not is_tensor(user) and read_outside(user, inside))
        for user in node.users
    )
