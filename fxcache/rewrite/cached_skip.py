"""The cached-skip variant: cached values come in, and what only they needed is gone."""

import operator

import torch
from torch import fx

from fxcache._torch import returns_view
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.program import Program, copy_graph, output_node, remove_dead


def cached_skip(program: Program, plan: CutPlan) -> fx.Graph:
    """``f(inputs, cached values) -> outputs``: the same graph, started at the cut.

    Before: ``x = conv(deep); y = cat([x, skip])``. After, x being cached:
    ``y = cat([cached_0, skip])``. Before: ``x = block(embedded); y = head(x)``. After, the
    difference being cached: ``y = head(embedded + cached_0)``. Liveness alone decides what stays,
    unused inputs excepted.
    """
    graph, copied = copy_graph(program.graph)
    after_inputs = copied[program.placeholders[-1]].next
    for index, point in enumerate(plan.points):
        with graph.inserting_before(after_inputs):
            cached = graph.placeholder(f"cached_{index}")
        cached.meta = dict(point.value.meta)
        replacement = restored(graph, point, cached, copied)
        copied[point.value].replace_all_uses_with(replacement)
    remove_dead(graph)
    detach_outputs(graph)
    return graph


def restored(
    graph: fx.Graph, point: CachePoint, cached: fx.Node, copied: dict[fx.Node, fx.Node]
) -> fx.Node:
    """The value at ``point``, from what is cached."""
    if point.shortcut is None:
        return cached
    with graph.inserting_before(copied[point.value]):
        base = point.shortcut.insert(graph, copied)
        value = graph.call_function(torch.ops.aten.add.Tensor, (base, cached))
    value.meta = dict(cached.meta)
    return value


def detach_outputs(graph: fx.Graph) -> None:
    """Copy outputs that are the cached value or views of it: callers may write to what they get."""
    output = output_node(graph)
    (outputs,) = output.args
    for node in dict.fromkeys(n for n in outputs if isinstance(n, fx.Node)):  # type: ignore[union-attr]
        if is_view_of_input(node):
            with graph.inserting_before(output):
                copied = graph.call_function(torch.ops.aten.clone.default, (node,))
            copied.meta = dict(node.meta)
            output.replace_input_with(node, copied)


def is_view_of_input(node: fx.Node) -> bool:
    """Whether ``node`` may share memory with a cached value."""
    while node.op == "call_function":
        if not returns_view(node.target) and node.target is not operator.getitem:
            return False
        node = node.all_input_nodes[0]
    return node.op == "placeholder" and node.name.startswith("cached_")
