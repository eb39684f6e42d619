"""Changes of ``onnx_ir`` models: duplicates, names, inputs that nothing reads, and notes."""

from collections.abc import Mapping, Sequence
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
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    Sequential(*passes)(model)


def rename(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the inputs and outputs of a model."""
    graph = model.graph
    for values, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    outside = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken = {*inputs, *outputs}
    for value in values_of(graph):
        if id(value) not in outside and value.name in taken:
            value.name = f"inner.{value.name}"


def tidy(model: Any, weights: Mapping[str, str], sizes: Mapping[str, str]) -> None:
    """Name weights and sizes, and remove torch.onnx's notes, which are most bytes of a graph.

    Args:
        model: The model.
        weights: For each initializer that is a weight, its name in the original module.
        sizes: The name of each size that may vary, by its symbol.
    """
    graph = model.graph
    for value in list(graph.initializers.values()):
        value.name = weights.get(value.name, value.name)
    for value in values_of(graph):
        value.metadata_props.clear()
        if value.shape is not None:
            value.shape = renamed_shape(value.shape, sizes)
    for owner in (model, graph, *graph):
        owner.metadata_props.clear()


def drop_unread(model: Any) -> list[str]:
    """Remove inputs that no node reads, and return the names of the others."""
    inputs = model.graph.inputs
    inputs[:] = [value for value in inputs if value.uses()]
    return [value.name for value in inputs]


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
