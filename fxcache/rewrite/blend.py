"""Blending: computed and cached values mixed by given shares, through which gradients flow."""

from collections.abc import Iterable

import torch
from torch import fx

from fxcache.partition.cut import CachePoint
from fxcache.program import after_inputs, new_input
from fxcache.rewrite.reads import placeholder, summed

Groups = Iterable[tuple[CachePoint, ...]]
aten = torch.ops.aten


def blend(graph: fx.Graph, groups: Groups, copied: dict[fx.Node, fx.Node]) -> None:
    """Mix the values at all points with what comes from the cache: β · value + (1 − β) · cached.

    Before: ``y = head(layer(x))``. After: ``y = head(layer(x) * β + cached_0 * (1 - β))``, β being
    ``betas[0]``, one number for each group. Where it is 0 or 1, nothing is rounded.
    """
    rows = [(row, point) for row, points in enumerate(groups) for point in points]
    with graph.inserting_before(after_inputs(graph)):
        held = [placeholder(graph, i, p.value) for i, (_, p) in enumerate(rows)]
        betas = new_input(graph, "betas")
    for (row, point), cached in zip(rows, held, strict=True):
        value = copied[point.value]
        with graph.inserting_before(value.next):
            other = cached if point.shortcut is None else summed(graph, point, cached, copied)
            beta = graph.call_function(aten.select.int, (betas, 0, row))
            rest = graph.call_function(aten.rsub.Scalar, (beta, 1))
            computed = graph.call_function(aten.mul.Tensor, (value, beta))
            reused = graph.call_function(aten.mul.Tensor, (other, rest))
            mixed = graph.call_function(aten.add.Tensor, (computed, reused))
        mixed.meta = dict(value.meta)
        value.replace_all_uses_with(mixed)
        computed.replace_input_with(mixed, value)
        copied[point.value] = mixed
