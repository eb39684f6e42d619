"""The cached-skip variant: cached values come in, and what only they needed is gone."""

from torch import fx

from fxcache.partition.cut import CutPlan
from fxcache.program import Program, copy_graph


def cached_skip(program: Program, plan: CutPlan) -> fx.Graph:
    """``f(inputs, cached values) -> outputs``: the same graph, started at the cut.

    Before: ``x = conv(deep); y = cat([x, skip])``. After, x being cached:
    ``y = cat([cached_0, skip])``. Liveness alone decides what stays, unused inputs excepted.
    """
    graph, copied = copy_graph(program.graph)
    after_inputs = copied[program.placeholders[-1]].next
    for index, value in enumerate(plan.values):
        with graph.inserting_before(after_inputs):
            cached = graph.placeholder(f"cached_{index}")
        cached.meta = dict(value.meta)
        copied[value].replace_all_uses_with(cached)
    remove_dead(graph)
    return graph


def remove_dead(graph: fx.Graph) -> None:
    """Erase every node that no output needs; functional graphs have no other reason to stay."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
