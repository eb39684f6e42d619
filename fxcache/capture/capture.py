"""nn.Module and a call -> Program: torch.export, weights shared, made functional and verified."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from fxcache._torch import expression_of, guards_of, is_vmap_step, tree_flatten, writes
from fxcache.analysis.dependence import Dependence
from fxcache.call import Call, named_leaves
from fxcache.capture.bind import bound, number_refusal
from fxcache.capture.boundary import Boundary, remove_copies, state_change
from fxcache.capture.export import Dynamic, Exported, as_original, export, first_line
from fxcache.capture.foreign_memory import own_constants
from fxcache.capture.isolation import isolated
from fxcache.capture.numbers import AsTensor
from fxcache.capture.source import recorded_line, source_of
from fxcache.errors import CaptureError, NotADenoiserError
from fxcache.program import Program, VaryingSizes, is_tensor, output_node, remove_dead, value_of
from fxcache.signature import Signature

aten = torch.ops.aten

WEIGHTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# Outside training, their third argument, these return the first.
DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
# These check what the call's key has checked already, and would keep dead values alive.
CHECKS = (aten._assert_tensor_metadata.default,)


def capture(module: nn.Module, signature: Signature, call: Call, fixed: bool = False) -> Program:
    """The graph of ``module``, under its original class, for ``call``.

    Sizes that the signature calls dynamic may vary, unless ``fixed`` or the model fixes them.
    Runs on fake tensors: no arithmetic is done, and weights may be on meta. The module stays as it
    is; its parameters and buffers are shared, not copied.

    Raises CaptureError (export failed, or the graph writes to its inputs or buffers) naming the
    source line, and NotADenoiserError if no output depends on the latent.
    """
    model = signature.model
    signature.require_accepted(call)
    require_no_cache_inside(module)
    dynamic: Dynamic = {} if fixed else signature.dynamic
    original = as_original(module, signature.original)
    if not call.is_bound:
        call = bound(original, call)
    try:
        found = export(original, call, dynamic, lines="FXCACHE_DUMP" in os.environ)
    except CaptureError as error:
        if isinstance(call.trace, AsTensor):
            raise number_refusal(error, call, call.trace) from error
        raise
    try:
        program = program_of(found, model, call, dynamic)
    except CaptureError:  # once more: the error tells the line of a node
        lined = export(original, call, dynamic, lines=True)
        program = program_of(lined, model, call, dynamic)
    require_denoiser(program)
    return program


def program_of(found: Exported, model: str, call: Call, dynamic: Dynamic) -> Program:
    """What was traced, made functional and verified."""
    exported, specialized, boundary = found
    remove_identities(exported.graph)
    own_constants(exported)
    if any(writes(n.target) or is_vmap_step(n.target) for n in all_nodes(exported)):
        exported = functional(exported, model)
        remove_identities(exported.graph)
    require_functional(exported, model)
    return unlift(exported, model, call, boundary, dynamic, specialized)


def require_no_cache_inside(module: nn.Module) -> None:
    """CaptureError if diffusers' own caching hooks are on: capture would keep their decision."""
    for path, submodule in module.named_modules():
        registry = vars(submodule).get("_diffusers_hook")
        hooks = getattr(registry, "hooks", {}).values()
        if any(getattr(hook, "_is_stateful", False) for hook in hooks):
            raise CaptureError(
                f"{type(module).__name__} has a cache of its own, which decides while it runs",
                where=path or type(module).__name__,
                remedy="call its disable_cache() first: one cache at a time",
            )


def all_nodes(exported: ExportedProgram) -> Iterator[fx.Node]:
    """The nodes of the graph and of the regions inside it (inner autocast, grad mode, branches)."""
    for module in exported.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def remove_identities(graph: fx.Graph) -> None:
    """Remove inactive dropouts and metadata checks."""
    for node in list(graph.nodes):
        if node.target in DROPOUTS and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in CHECKS:
            graph.erase_node(node)


def functional(exported: ExportedProgram, model: str) -> ExportedProgram:
    """The same program without in-place writes and vmaps, as far as torch can follow them."""
    try:
        with isolated():
            return exported.run_decompositions({})
    except Exception as error:
        raise CaptureError(
            f"{model} writes in place where torch cannot follow: {first_line(error)}",
            where=recorded_line(error) or f"{model}.forward",
            remedy="make that line return a new tensor",
        ) from error


def require_functional(exported: ExportedProgram, model: str) -> None:
    """CaptureError if the graph writes to anything: a cached value could change afterwards."""
    nodes = {node.name: node for node in exported.graph.nodes}
    written = [
        source_of(nodes[s.arg.name])
        for s in exported.graph_signature.output_specs
        if s.kind is not OutputKind.USER_OUTPUT
    ]
    written += [source_of(n) for n in all_nodes(exported) if writes(n.target)]
    if written:
        raise CaptureError(
            f"{model} writes to its inputs, buffers or other state while it runs",
            where=written[0],
            remedy="make that line return a new tensor",
        )


def unlift(
    exported: ExportedProgram,
    model: str,
    call: Call,
    boundary: Boundary,
    dynamic: Dynamic,
    specialized: frozenset[str],
) -> Program:
    """The program: weights as ``get_attr``, tensor inputs as placeholders, constants gone."""
    leaves, _ = tree_flatten(call.exported)
    paths = [path for path, _ in named_leaves(call.exported)]
    if len(leaves) != len(paths):
        raise CaptureError(
            f"{model} is called with a container other than dict, list or tuple",
            where=", ".join(paths),
            remedy="pass tensors in dicts, lists or tuples",
        )
    graph = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    weights: dict[str, Any] = {}
    given = iter(leaves)
    specs = {s.arg.name: s for s in exported.graph_signature.input_specs}
    for node in exported.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind is InputKind.USER_INPUT:
            if isinstance(next(given), Tensor):
                nodes[node] = graph.node_copy(node)
        elif spec is not None:
            name = str(spec.target)
            weights[name] = weight(exported, name, spec.kind)
            nodes[node] = graph.create_node("get_attr", name)
            nodes[node].meta = dict(node.meta)
        else:
            if node.op == "get_attr":
                weights[str(node.target)] = getattr(exported.graph_module, str(node.target))
            nodes[node] = graph.node_copy(node, lambda n: nodes[n])
    remove_copies(graph, call)
    state = state_change(boundary, graph, call)
    remove_dead(graph)
    graph.lint()
    assert boundary.out_spec is not None
    sizes = varying_sizes(graph, exported, call, dynamic)
    return Program(
        model, graph, call.inputs(), weights, boundary.out_spec, specialized, sizes, state
    )


def varying_sizes(
    graph: fx.Graph, exported: ExportedProgram, call: Call, dynamic: Dynamic
) -> VaryingSizes:
    """The inputs' sizes that were left open, and what the trace found to hold between them."""
    placeholders = (n for n in graph.nodes if n.op == "placeholder")
    expressions = {
        (index, dim): expression_of(value_of(node).shape[dim])
        for index, (node, given) in enumerate(zip(placeholders, call.inputs(), strict=True))
        for dim in dynamic.get(given.path, ())
    }
    ranges = {s: (r.lower, r.upper) for s, r in exported.range_constraints.items()}
    sizes = (size for n in graph.nodes if is_tensor(n) for size in value_of(n).shape)
    varying = next((size for size in sizes if not isinstance(size, int)), 0)
    guards = dict.fromkeys(guards_of(varying))  # the same for all
    return VaryingSizes(expressions, ranges, tuple(guards))


def weight(exported: ExportedProgram, name: str, kind: InputKind) -> Tensor:
    """The module's own tensor behind a lifted input."""
    if kind not in WEIGHTS:
        raise CaptureError(
            f"the graph has an input of kind {kind.name}",
            where=name,
            remedy="keep plain tensors on the module, not tokens or script objects",
        )
    held: Any = exported.state_dict.get(name, exported.constants.get(name))
    return held


def require_denoiser(program: Program) -> None:
    """NotADenoiserError unless some output depends on the latent."""
    if not Dependence(program).on_latent(output_node(program.graph)):
        raise NotADenoiserError(
            f"no output of {program.model} depends on its first input",
            where=program.inputs[0].path,
            remedy="optimize the module that turns the noisy latent into a prediction",
        )
