"""The full variant: the original computation, which also hands out the cached values."""

import torch
from torch import fx

from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.program import Program, copy_graph, output_node


def full(program: Program, plan: CutPlan) -> fx.Graph:
    """``f(inputs) -> (*outputs, *cached values)``.

    Before: ``return (prediction,)``. After: ``return (prediction, up_blocks_3_attentions_1)``, or
    ``return (prediction, last_block - first_input)``. The outputs never pass through the
    difference: in floating point, x + (y − x) is not y.
    """
    graph, copied = copy_graph(program.graph)
    cached = [difference(graph, point, copied) for point in plan.points]
    output = output_node(graph)
    (outputs,) = output.args
    output.args = ((*outputs, *cached),)  # type: ignore[misc]
    return graph


def difference(graph: fx.Graph, point: CachePoint, copied: dict[fx.Node, fx.Node]) -> fx.Node:
    """What is cached at ``point``, computed as soon as its value is."""
    value = copied[point.value]
    if point.shortcut is None:
        return value
    with graph.inserting_before(value.next):
        base = point.shortcut.insert(graph, copied)
        cached = graph.call_function(torch.ops.aten.sub.Tensor, (value, base))
    cached.meta = dict(value.meta)
    return cached
