"""Capture: turns a module and one call into a functional Program that shares the weights."""

import os
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from fxcache._torch import is_vmap_step, writes
from fxcache.analysis.dependence import Dependence
from fxcache.call import Call
from fxcache.capture.bind import bound, number_refusal
from fxcache.capture.export import Dynamic, Exported, export
from fxcache.capture.foreign_memory import own_constants
from fxcache.capture.isolation import ONE_AT_A_TIME, isolated
from fxcache.capture.loading import traced_loading
from fxcache.capture.numbers import AsTensor
from fxcache.capture.provided import ProvidesPrograms
from fxcache.capture.randomness import draws_and_checks, is_active, unused_calls
from fxcache.capture.refusal import first_line
from fxcache.capture.sharding import require_no_wrappers, require_tensor_timestep
from fxcache.capture.source import recorded_line, source_of
from fxcache.capture.stand_in import as_original
from fxcache.capture.unlift import WRITTEN, WRITTEN_WEIGHTS, tensor_inputs, unlift
from fxcache.capture.weight_hooks import DIFFUSERS_HOOKS
from fxcache.capture.written import copy_written
from fxcache.errors import CaptureError, NotADenoiserError
from fxcache.opaque import call_of
from fxcache.program import Program, Role, output_node
from fxcache.signature import Signature

aten = torch.ops.aten

# If they are not active, these operators return their input.
DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
# The key of a call already covers these checks, and they would keep dead values alive.
CHECKS = (aten._assert_tensor_metadata.default,)


def capture(module: nn.Module, signature: Signature, call: Call, fixed: bool = False) -> Program:
    """Capture the graph of ``module`` for one call.

    The module is traced on fake tensors: nothing is computed, and weights may be on meta. The
    module does not change. The program shares its parameters and buffers.

    Args:
        module: The module. It may be optimised already: its original class is traced.
        signature: The signature of the original class.
        call: The call to trace.
        fixed: Whether to specialise on all sizes, even those that the signature calls dynamic.

    Raises:
        CaptureError: torch.export fails, or the graph writes to its inputs. The error
            names the source line.
        NotADenoiserError: No output depends on the latent.
    """
    if isinstance(module, ProvidesPrograms):
        return module.program_for(call)
    model = signature.model
    signature.require_accepted(call)
    require_no_wrappers(module)
    require_tensor_timestep(module, call)
    require_no_cache_inside(module)
    dynamic: Dynamic = {} if fixed else signature.dynamic
    with ONE_AT_A_TIME, traced_loading(as_original(module, signature.original)) as original:
        return traced_program(original, model, call, dynamic)


def traced_program(original: nn.Module, model: str, call: Call, dynamic: Dynamic) -> Program:
    """Return the program of ``original``, which has its original class and no hooks of its own.

    Args:
        original: The module.
        model: The name of its class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
    """
    if not call.is_bound:
        call = bound(original, call)
    lines = "FXCACHE_DUMP" in os.environ
    try:
        traced = export(original, call, dynamic, lines)
    except CaptureError as error:
        if isinstance(call.trace, AsTensor):
            raise number_refusal(error, call, call.trace) from error
        raise
    try:
        program = program_of(traced, original, model, call, dynamic, lines)
    except CaptureError:  # trace again with source lines, so that the error can name one
        with_lines = export(original, call, dynamic, lines=True)
        program = program_of(with_lines, original, model, call, dynamic, lines=True)
    require_denoiser(program)
    return program


def program_of(
    traced: Exported, original: nn.Module, model: str, call: Call, dynamic: Dynamic, lines: bool
) -> Program:
    """Return the program of a trace, functional and verified. ``lines`` is that of the trace."""
    exported, specialized, boundary, names, opaque = traced
    remove_identities(exported.graph)
    before = draws_and_checks(exported.graph, dict(exported.graph_module.named_children()))
    written = copy_written(exported, original, names)
    own_constants(exported)
    if any(writes(n.target) or is_vmap_step(n.target) for n in all_nodes(exported)):
        exported = functional(exported, model, lines)
        remove_identities(exported.graph)
    require_functional(exported, model, call)
    program = unlift(exported, model, call, boundary, dynamic, specialized, names)
    called = set(map(call_of, program.graph.nodes))
    return replace(
        program,
        opaque=tuple(call for call in opaque if call in called),
        effects=(*program.effects, *written),
        unused=unused_calls(before, draws_and_checks(program.graph, program.weights)),
    )


def require_no_cache_inside(module: nn.Module) -> None:
    """Raise CaptureError if a cache of diffusers is enabled.

    Its hooks decide at each step. A graph would repeat the decision of the traced step.
    """
    for path, submodule in module.named_modules():
        registry = vars(submodule).get(DIFFUSERS_HOOKS)
        hooks = getattr(registry, "hooks", {}).values()
        if any(getattr(hook, "_is_stateful", False) for hook in hooks):
            raise CaptureError(
                f"a cache of diffusers is enabled on {type(module).__name__}",
                where=path or type(module).__name__,
                remedy="call its disable_cache() first: only one cache can be active",
            )


def all_nodes(exported: ExportedProgram) -> Iterator[fx.Node]:
    """The nodes of the graph, and of inner graphs for autocast, grad mode and branches."""
    for module in exported.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def remove_identities(graph: fx.Graph) -> None:
    """Remove inactive dropouts and metadata checks."""
    for node in list(graph.nodes):
        if node.target in DROPOUTS and not is_active(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in CHECKS:
            graph.erase_node(node)


def functional(exported: ExportedProgram, model: str, lines: bool) -> ExportedProgram:
    """Return the same program without in-place writes and vmaps.

    Raises:
        CaptureError: torch cannot make a write functional.
    """
    try:
        with isolated(lines):
            return exported.run_decompositions({})
    except Exception as error:
        raise CaptureError(
            f"torch cannot make the graph of {model} functional: {first_line(error)}",
            where=recorded_line(error) or f"{model}.forward",
            remedy="make in-place writes return new tensors, and use no transforms of torch.func",
        ) from error


def require_functional(exported: ExportedProgram, model: str, call: Call) -> None:
    """Raise CaptureError if the graph writes in place: a cached value could change later.

    A functional graph returns the new value of each argument that the model writes to. Arguments
    that are conditioning may be written to, such as a cache of keys and values.
    """
    nodes = {node.name: node for node in exported.graph.nodes}
    roles = dict(zip(tensor_inputs(exported, call), call.roles, strict=True))
    written = [
        source_of(nodes[s.arg.name])
        for s in exported.graph_signature.output_specs
        if s.kind not in (OutputKind.USER_OUTPUT, *WRITTEN_WEIGHTS)
        and not (s.kind is WRITTEN and roles[str(s.target)] is Role.CONDITIONING)
    ]
    written += [source_of(n) for n in all_nodes(exported) if writes(n.target)]
    if written:
        raise CaptureError(
            f"{model} writes to its inputs or other state while it runs",
            where=written[0],
            remedy="make that line return a new tensor",
        )


def require_denoiser(program: Program) -> None:
    """Raise NotADenoiserError unless some output depends on the latent."""
    if not Dependence(program).on_latent(output_node(program.graph)):
        raise NotADenoiserError(
            f"no output of {program.model} depends on its first input",
            where=program.inputs[0].path,
            remedy="optimize the module that turns the noisy latent into a prediction",
        )
