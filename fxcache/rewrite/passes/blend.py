"""Blending: mixes computed and cached values with weights that receive gradients."""

from collections.abc import Iterable

import torch

from fxcache.codecs import residual
from fxcache.codecs.identity import Identity
from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.partition.cut import CachePoint
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass

BETAS = "betas"  # the key of the weights β, and the name of their placeholder
aten = torch.ops.aten


def blend(groups: Iterable[tuple[CachePoint, ...]]) -> Pass:
    """Return a pass that mixes values at all points with cached ones: β · value + (1 - β) · cached.

    Before: ``y = head(layer(x))``. After: ``y = head(layer(x) * β + cached_0 * (1 - β))``, where β
    is ``betas[0]``. There is one β for each group. The result is exact if β is 0 or 1.
    """
    rows = [(row, point) for row, points in enumerate(groups) for point in points]

    def run(draft: Draft) -> None:
        graph, nodes, codec = draft.graph, draft.nodes, Identity()
        stored = [codec.inputs(graph, i, p.value) for i, (_, p) in enumerate(rows)]
        betas = add_input(graph, BETAS, Source(InputKind.COEFFICIENT, BETAS))
        for (row, point), (cached,) in zip(rows, stored, strict=True):
            value = nodes[point.value]
            with graph.inserting_before(value.next):
                other = residual.decode(graph, point, cached, nodes)
                beta = graph.call_function(aten.select.int, (betas, 0, row))
                rest = graph.call_function(aten.rsub.Scalar, (beta, 1))
                computed = graph.call_function(aten.mul.Tensor, (value, beta))
                reused = graph.call_function(aten.mul.Tensor, (other, rest))
                mixed = graph.call_function(aten.add.Tensor, (computed, reused))
            mixed.meta = dict(value.meta)
            value.replace_all_uses_with(mixed)
            computed.replace_input_with(mixed, value)
            nodes[point.value] = mixed

    return Pass(
        "blend",
        run,
        requires=frozenset({Property.ALL_NODES}),
        ensures=frozenset({Property.CACHE_READ, Property.OUTPUTS_FINAL}),
    )
