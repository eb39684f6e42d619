"""Cache writes: a variant also hands out the values that are to be cached."""

from collections.abc import Iterable, Mapping

import torch
from torch import fx

from fxcache.partition.cut import CachePoint
from fxcache.program import output_node

Copied = Mapping[fx.Node, fx.Node]


def write(graph: fx.Graph, points: Iterable[CachePoint], copied: Copied) -> None:
    """Return the values at ``points`` after the outputs.

    Before: ``return (prediction,)``. After: ``return (prediction, up_blocks_3_attentions_1)``, or
    ``return (prediction, last_block - first_input)``. The outputs never pass through the
    difference: in floating point, x + (y − x) is not y.
    """
    cached = [difference(graph, point, copied) for point in points]
    output = output_node(graph)
    (outputs,) = output.args
    output.args = ((*outputs, *cached),)  # type: ignore[misc]


def difference(graph: fx.Graph, point: CachePoint, copied: Copied) -> fx.Node:
    """What is cached at ``point``, computed as soon as its value is."""
    value = copied[point.value]
    if point.shortcut is None:
        return value
    with graph.inserting_before(value.next):
        base = point.shortcut.insert(graph, copied)
        cached = graph.call_function(torch.ops.aten.sub.Tensor, (value, base))
    cached.meta = dict(value.meta)
    return cached
