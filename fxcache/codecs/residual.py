"""A residual cut stores a value's difference from its shortcut, which reuse computes afresh."""

from collections.abc import Mapping

import torch
from torch import fx

from fxcache.partition.cut import CachePoint, SignalPoint

SUM = "fxcache_sum"  # notes the shortcut and the cached difference on what is read
Copied = Mapping[fx.Node, fx.Node]
aten = torch.ops.aten


def encode(graph: fx.Graph, point: CachePoint | SignalPoint, copied: Copied) -> fx.Node:
    """What is stored or observed at ``point``: value - shortcut, or the value if it has none.

    It is computed as soon as its value is. ``copied``: from the program's nodes to ``graph``'s.
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
    """The value at ``point``: shortcut + ``cached``, or ``cached`` itself at a feature cut."""
    if point.shortcut is None:
        return cached
    shortcut = point.shortcut.insert(graph, copied)
    value = graph.call_function(aten.add.Tensor, (shortcut, cached))
    value.meta = {**cached.meta, SUM: (value, shortcut, cached)}
    return value
