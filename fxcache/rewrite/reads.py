"""Cache reads: cached values come in, and what only they needed is gone."""

import operator
from collections.abc import Mapping

import torch
from torch import fx

from fxcache._torch import returns_view
from fxcache.partition.cut import CachePoint
from fxcache.program import after_inputs, new_input, noted, output_node
from fxcache.rewrite.adjustment import ScaleShift
from fxcache.rewrite.correction import TREND, add_trend
from fxcache.rewrite.hoist import GIVEN, SHARED
from fxcache.rewrite.quantized import Quantized

READ = "cached_"  # begins the names of placeholders for cached values
KEPT = "fxcache_kept"  # notes that a placeholder is one, and of which cache point
# What a node made here computes, for kernels that do it on their way (``rewrite/fuse.py``):
FORECAST = "fxcache_forecast"  # the value and its derivatives, and their weights
SUM = "fxcache_sum"  # what is computed afresh, and what is cached
Copied = Mapping[fx.Node, fx.Node]


def read(
    graph: fx.Graph,
    points: Mapping[int, CachePoint],
    order: int,
    copied: dict[fx.Node, fx.Node],
    adjusted: ScaleShift | None = None,
    corrected: bool = False,
    quantized: Quantized | None = None,
) -> None:
    """Replace the values at ``points``, by number, with what comes from the cache.

    Before: ``x = conv(deep); y = cat([x, skip])``. After, x being cached: ``y = cat([cached_0,
    skip])``. Before: ``x = block(embedded); y = head(x)``. After, the difference being cached:
    ``y = head(embedded + cached_0)``. With a forecast of order 1, ``cached_0`` becomes
    ``cached_0 + weights[0, 0] * cached_0_1``; corrected, ``cached_0 + trend_0``; adjusted,
    ``cached_0 * (1 + scale) + shift``; ``quantized``, it is restored first. What only the values
    needed is left dead.
    """
    with graph.inserting_before(after_inputs(graph)):
        held = {
            number: placeholders(graph, number, point.value, order, quantized)
            for number, point in points.items()
        }
        weights = new_input(graph, "weights") if order and points else None
        trends = {n: new_input(graph, f"{TREND}{n}") for n in points if corrected}
    for row, (number, point) in enumerate(points.items()):
        value = copied[point.value]
        with graph.inserting_before(value):
            if quantized:
                cached = quantized.restore(graph, held[number], point.value)
            elif weights is not None:
                cached = forecast(graph, held[number], weights, row)
            else:
                (cached,) = held[number]
            if corrected:
                cached = add_trend(graph, cached, trends[number])
            if adjusted:
                cached = adjusted.insert(graph, point, cached, copied)
            replacement = cached if point.shortcut is None else summed(graph, point, cached, copied)
        copied[point.value].replace_all_uses_with(replacement)
        copied[point.value] = replacement


def placeholders(
    graph: fx.Graph, number: int, like: fx.Node, order: int, quantized: Quantized | None
) -> list[fx.Node]:
    """Inputs for a cached value: it and its derivatives, or what it was quantised to."""
    if quantized:
        return quantized.placeholders(graph, f"{READ}{number}", like)
    suffixes = ["", *(f"_{i}" for i in range(1, order + 1))]
    return [placeholder(graph, number, like, suffix) for suffix in suffixes]


def placeholder(graph: fx.Graph, number: int, like: fx.Node, suffix: str = "") -> fx.Node:
    made = new_input(graph, f"{READ}{number}{suffix}", like)
    made.meta[KEPT] = (made, number)
    return made


def summed(graph: fx.Graph, point: CachePoint, cached: fx.Node, copied: Copied) -> fx.Node:
    """The value at a residual ``point``: its shortcut computed afresh, and what is cached added."""
    assert point.shortcut is not None
    base = point.shortcut.insert(graph, copied)
    value = graph.call_function(torch.ops.aten.add.Tensor, (base, cached))
    value.meta = {**cached.meta, SUM: (value, base, cached)}
    return value


def forecast(graph: fx.Graph, terms: list[fx.Node], weights: fx.Node, row: int) -> fx.Node:
    """The cached value, plus its derivatives by their weights (row ``row`` of ``[P, order]``)."""
    total, *derivatives = terms
    chosen = graph.call_function(torch.ops.aten.select.int, (weights, 0, row))
    for column, derivative in enumerate(derivatives):
        weight = graph.call_function(torch.ops.aten.select.int, (chosen, 0, column))
        term = graph.call_function(torch.ops.aten.mul.Tensor, (derivative, weight))
        total = graph.call_function(torch.ops.aten.add.Tensor, (total, term))
        term.meta, total.meta = dict(derivative.meta), dict(derivative.meta)
    total.meta = {**total.meta, FORECAST: (total, terms, chosen)}
    return total


def detach_outputs(graph: fx.Graph) -> None:
    """Copy outputs that are kept values or views of them: callers may write to what they get."""
    output = output_node(graph)
    (outputs,) = output.args
    for node in dict.fromkeys(n for n in outputs if isinstance(n, fx.Node)):  # type: ignore[union-attr]
        if is_view_of_kept(node):
            with graph.inserting_before(output):
                copied = graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.meta = dict(node.meta)
            output.replace_input_with(node, copied)


def is_view_of_kept(node: fx.Node) -> bool:
    """Whether ``node`` may share memory with a value that is kept for later steps.

    What the prefix shares may be a view of what was given to it.
    """
    while node.op == "call_function":
        if not returns_view(node.target) and node.target is not operator.getitem:
            return False
        node = node.all_input_nodes[0]
    return any(noted(node, what) is not None for what in (KEPT, GIVEN, SHARED))
