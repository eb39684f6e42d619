"""The full variant: the original computation, which also hands out the cached values."""

from torch import fx

from fxcache.partition.cut import CutPlan
from fxcache.program import Program, copy_graph, output_node


def full(program: Program, plan: CutPlan) -> fx.Graph:
    """``f(inputs) -> (*outputs, *cached values)``.

    Before: ``return (prediction,)``. After: ``return (prediction, up_blocks_3_attentions_1)``.
    """
    graph, copied = copy_graph(program.graph)
    output = output_node(graph)
    (outputs,) = output.args
    output.args = ((*outputs, *(copied[v] for v in plan.values)),)  # type: ignore[misc]
    return graph
