"""Changes of ``onnx_ir`` models: names of weights and sizes, inputs that nothing reads, notes."""

from collections.abc import Mapping
from typing import Any

from fxcache.deploy.onnx.names import renamed


def simplify(model: Any) -> None:
    """Compute what depends on constants alone, and remove duplicates and dead nodes.

    These are the passes of onnxscript's optimiser, without its fusions. Runtimes fuse on their own,
    and matching takes time that grows with the square of the graph: minutes for 10,000 nodes.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants

    fold_constants(model, onnx_shape_inference=True)
    passes = (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    Sequential(*passes)(model)


def tidy(model: Any, weights: Mapping[str, str], sizes: Mapping[str, str]) -> list[str]:
    """Tidy a model that torch.onnx made, and return the names of its inputs.

    Inputs that no node reads are removed. So are the notes of torch.onnx about each node, which
    are most of the bytes of a graph.

    Args:
        model: The model.
        weights: For each initializer that is a weight, its name in the original module.
        sizes: The name of each size that may vary, by its symbol.
    """
    graph = model.graph
    read = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    graph.inputs[:] = read
    for value in list(graph.initializers.values()):
        value.name = weights.get(value.name, value.name)
    for value in values_of(graph):
        value.metadata_props.clear()
        if value.shape is not None:
            value.shape = renamed_shape(value.shape, sizes)
    for owner in (model, graph, *graph):
        owner.metadata_props.clear()
    make_unique(graph)
    return [value.name for value in read]


def values_of(graph: Any) -> list[Any]:
    """Return all values of a graph."""
    computed = (value for node in graph for value in node.outputs)
    return [*graph.inputs, *graph.initializers.values(), *computed]


def renamed_shape(shape: Any, sizes: Mapping[str, str]) -> Any:
    """Return a shape with the names of sizes in place of their symbols."""
    return type(shape)(
        dim if isinstance(dim, int) else None if dim.value is None else renamed(dim.value, sizes)
        for dim in shape
    )


def make_unique(graph: Any) -> None:
    """Rename values inside the graph that have the name of an input or an output."""
    outside = {id(value): value.name for value in (*graph.inputs, *graph.outputs)}
    taken = set(outside.values())
    for value in values_of(graph):
        if id(value) not in outside and value.name in taken:
            value.name = f"inner.{value.name}"
