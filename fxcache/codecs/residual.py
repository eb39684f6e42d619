"""Residual cuts: store value - shortcut; a reuse step computes the shortcut and adds it."""

from collections.abc import Mapping

import torch
from torch import fx

from fxcache.partition.cut import CachePoint, SignalPoint

SUM = "fxcache_sum"  # the key of a note: shortcut and cached difference of a sum
Copied = Mapping[fx.Node, fx.Node]
aten = torch.ops.aten


def encode(graph: fx.Graph, point: CachePoint | SignalPoint, copied: Copied) -> fx.Node:
    """Return the value to store or observe: value - shortcut, or the value without a shortcut.

    It is computed directly after the value.

    Args:
        graph: The graph, changed in place.
        point: The point of the value.
        copied: The node in ``graph`` for each node of the program.
    """
    value = copied[point.value]
    if point.shortcut is None:
        return value
    with graph.inserting_before(value.next):
        shortcut = point.shortcut.insert(graph, copied)
        difference = graph.call_function(aten.sub.Tensor, (value, shortcut))
    difference.meta = dict(value.meta)
    return difference


def decode(graph: fx.Graph, point: CachePoint, cached: fx.Node, copied: Copied) -> fx.Node:
    """Return the value at ``point``: shortcut + ``cached``, or ``cached`` at a feature cut."""
    if point.shortcut is None:
        return cached
    shortcut = point.shortcut.insert(graph, copied)
    value = graph.call_function(aten.add.Tensor, (shortcut, cached))
    value.meta = {**cached.meta, SUM: (value, shortcut, cached)}
    return value
