"""The program of an exported graph: weights become attributes, and constant inputs are removed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from fxcache._torch import expression_of, guards_of, tree_flatten, with_code
from fxcache.call import Call
from fxcache.capture.boundary import Boundary, remove_copies, state_change
from fxcache.capture.export import Dynamic
from fxcache.capture.written import require_apart
from fxcache.effect import Effect, Place
from fxcache.errors import CaptureError
from fxcache.leaves import named_leaves
from fxcache.program import Program, VaryingSizes, is_tensor, output_node, remove_dead, value_of

WRITTEN = OutputKind.USER_INPUT_MUTATION
WRITTEN_WEIGHTS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
WRITES = (WRITTEN, *WRITTEN_WEIGHTS)
WEIGHTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def unlift(
    exported: ExportedProgram,
    model: str,
    call: Call,
    boundary: Boundary,
    dynamic: Dynamic,
    specialized: frozenset[str],
    names: Mapping[str, str],
) -> Program:
    """Return the program: weights become ``get_attr`` nodes, and constant inputs are removed.

    Args:
        exported: The exported program.
        model: The class name of the model.
        call: The traced call.
        boundary: The structure of its results.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        specialized: The paths of the inputs whose values are constants of the graph.
        names: The names of some weights, by their names in ``exported``.
    """
    leaves, _ = tree_flatten(call.exported)
    paths = [path for path, _ in named_leaves(call.exported)]
    if len(leaves) != len(paths):
        raise CaptureError(
            f"{model} is called with a container other than dict, list or tuple",
            where=", ".join(paths),
            remedy="pass tensors in dicts, lists or tuples",
        )
    graph, weights = unlifted_graph(exported, leaves, names)
    written = take_written(exported, graph, call)
    assigned = boundary.effects.take(graph, weights, boundary.module)
    effects = (*assigned, *written_weights(exported, names))
    remove_detaches(graph)
    remove_copies(graph, call)
    state = state_change(boundary, graph, call, written)
    remove_dead(graph)
    graph.lint()
    assert boundary.out_spec is not None
    sizes = varying_sizes(graph, exported, call, dynamic)
    return Program(
        model,
        graph,
        call.inputs(),
        weights,
        boundary.out_spec,
        specialized,
        sizes,
        state,
        effects=effects,
    )


def unlifted_graph(
    exported: ExportedProgram, leaves: Sequence[Any], names: Mapping[str, str]
) -> tuple[fx.Graph, dict[str, Any]]:
    """Return the graph with ``get_attr`` nodes for weights, and the weights by name.

    Args:
        exported: The exported program.
        leaves: The values of its user inputs. Those that are no tensors are left out.
        names: The names of some weights, by their names in ``exported``.
    """
    graph = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    weights: dict[str, Any] = {}
    remaining = iter(leaves)
    specs = {s.arg.name: s for s in exported.graph_signature.input_specs}
    for node in exported.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind is InputKind.USER_INPUT:
            if isinstance(next(remaining), Tensor):
                nodes[node] = graph.node_copy(node)
        elif spec is not None:
            target = str(spec.target)
            name = names.get(target, target)
            weights[name] = weight(exported, target, spec.kind)
            nodes[node] = graph.create_node("get_attr", name)
            nodes[node].meta = dict(node.meta)
        else:
            if node.op == "get_attr":
                part = getattr(exported.graph_module, str(node.target))
                weights[str(node.target)] = with_code(part)
            nodes[node] = graph.node_copy(node, lambda n: nodes[n])
    return graph, weights


def tensor_inputs(exported: ExportedProgram, call: Call) -> list[str]:
    """Return the names of the placeholders of the call's tensors, in order."""
    leaves, _ = tree_flatten(call.exported)
    names = zip(exported.graph_signature.user_inputs, leaves, strict=True)
    return [str(name) for name, leaf in names if isinstance(leaf, Tensor)]


def take_written(exported: ExportedProgram, graph: fx.Graph, call: Call) -> dict[int, fx.Node]:
    """Remove the outputs of ``graph`` that are new values of arguments or weights.

    Returns:
        The values of arguments by the index of the input.

    Raises:
        CaptureError: Another argument shares the memory, so that a write would change it too.
    """
    names = tensor_inputs(exported, call)
    results: Any = output_node(graph).args[0]
    pairs = list(zip(exported.graph_signature.output_specs, results, strict=True))
    output_node(graph).args = (tuple(r for s, r in pairs if s.kind not in WRITES),)
    written = {names.index(str(s.target)): r for s, r in pairs if s.kind is WRITTEN}
    require_apart(call, written)
    return written


def written_weights(exported: ExportedProgram, names: Mapping[str, str]) -> Iterator[Effect]:
    """Yield an effect for each parameter or buffer that the call writes to."""
    for spec in exported.graph_signature.output_specs:
        if spec.kind in WRITTEN_WEIGHTS:
            name = str(spec.target)
            yield Effect(Place.named(names.get(name, name)), "", stores=True)


def remove_detaches(graph: fx.Graph) -> None:
    """Replace ``detach`` of a weight by the weight: the graph computes no gradients."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        (source,) = node.args
        if isinstance(source, fx.Node) and source.op == "get_attr":
            node.replace_all_uses_with(source)


def varying_sizes(
    graph: fx.Graph, exported: ExportedProgram, call: Call, dynamic: Dynamic
) -> VaryingSizes:
    """Return the input sizes that may vary, and the constraints that the trace found."""
    placeholders = (n for n in graph.nodes if n.op == "placeholder")
    expressions = {
        (index, dim): expression_of(value_of(node).shape[dim])
        for index, (node, call_input) in enumerate(zip(placeholders, call.inputs(), strict=True))
        for dim in dynamic.get(call_input.path, ())
    }
    ranges = {s: (r.lower, r.upper) for s, r in exported.range_constraints.items()}
    sizes = (size for n in graph.nodes if is_tensor(n) for size in value_of(n).shape)
    varying = next((size for size in sizes if not isinstance(size, int)), 0)
    guards = dict.fromkeys(guards_of(varying))  # all sizes share one list of guards
    return VaryingSizes(expressions, ranges, tuple(guards))


def weight(exported: ExportedProgram, name: str, kind: InputKind) -> Tensor:
    """Return the module's tensor that a lifted input represents."""
    if kind not in WEIGHTS:
        raise CaptureError(
            f"the graph has an input of kind {kind.name}",
            where=name,
            remedy="keep plain tensors on the module, not tokens or script objects",
        )
    tensor: Any = exported.state_dict.get(name, exported.constants.get(name))
    return tensor
