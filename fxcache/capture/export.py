"""Runs torch.export for one call, with stand-ins for the module and for the input tensors."""

import contextlib
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fxcache._torch import (
    accept_any_keyword,
    forget_hooks,
    tree_flatten,
    tree_map_only,
    tree_unflatten,
)
from fxcache.call import Call
from fxcache.capture.boundary import Boundary
from fxcache.capture.choice import Choice
from fxcache.capture.isolation import isolated
from fxcache.capture.loading import set_forward
from fxcache.capture.opaque import OpaqueError, OpaqueSubmodules
from fxcache.capture.preserve import Preserved
from fxcache.capture.probe import can_run, probed
from fxcache.capture.randomness import without_draws
from fxcache.capture.replacements import Replacements, UntraceableError
from fxcache.capture.source import source_line
from fxcache.capture.specialize import Specialize
from fxcache.errors import CaptureError
from fxcache.leaves import named_leaves
from fxcache.opaque import OpaqueCall
from fxcache.program import STATE_KEY, has_unknown_size, is_tensor, value_of

Dynamic = Mapping[str, Set[int]]
MAX_RETRIES = 12  # each costs a trace up to the next submodule that cannot be traced


class Exported(NamedTuple):
    """The result of torch.export for one call.

    Attributes:
        program: The exported program.
        specialized: The paths of the inputs whose values are constants of the graph.
        boundary: The structure of the results of the call.
        opaque: The calls of submodules that are not traced.
    """

    program: ExportedProgram
    specialized: frozenset[str]
    boundary: Boundary
    opaque: tuple[OpaqueCall, ...] = ()


def export(module: nn.Module, call: Call, dynamic: Dynamic, lines: bool = False) -> Exported:
    """Run torch.export for ``call``. Composite operators stay whole (the training form).

    If a submodule cannot be traced, the graph calls it as it is.

    Args:
        module: The module under its original class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        lines: Whether to record the source line of each node, which takes time.

    Raises:
        CaptureError: The module itself cannot be traced.
    """
    try:
        return attempted(module, call, dynamic, lines)
    except CaptureError:
        raise
    except Exception as error:
        refused = refusal(module, error)
        if not can_run(module, call) or any(p.is_inference() for p in module.parameters()):
            raise refused from error
        return with_opaque_submodules(module, call, dynamic, lines, error, refused)


def attempted(
    module: nn.Module,
    call: Call,
    dynamic: Dynamic,
    lines: bool,
    opaque: OpaqueSubmodules | None = None,
) -> Exported:
    """Make two attempts at a trace.

    If the model branches on values, or shapes depend on values, the second one specialises the
    graph on the values of the call's conditioning. Its error is passed on.

    Args:
        module: The module under its original class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        lines: Whether to record the source line of each node.
        opaque: The submodules that are called as they are.
    """
    with contextlib.suppress(Exception):  # the second attempt reports the error
        exported = traced(module, call, dynamic, lines, opaque=opaque)
        if not has_unknown_sizes(exported.program):
            return exported
    return traced(module, call, dynamic, lines, Specialize(call.readable()), opaque)


def with_opaque_submodules(
    module: nn.Module,
    call: Call,
    dynamic: Dynamic,
    lines: bool,
    error: Exception,
    refused: CaptureError,
) -> Exported:
    """Return a graph that calls as they are the submodules that cannot be traced.

    Args:
        module: The module under its original class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        lines: Whether to record the source line of each node.
        error: The error of the trace without such calls.
        refused: The error to raise if this is of no help.
    """
    choice, records, last = Choice(module), None, error
    for _ in range(MAX_RETRIES):
        if not choice.extend(last, reason_of(last)):
            break
        if records is None:
            try:
                records = probed(module, call)
            except Exception:
                raise refused from error  # the model does not accept these inputs
        try:
            return attempted(module, call, dynamic, lines, OpaqueSubmodules(choice, records))
        except CaptureError:
            raise
        except Exception as other:
            last = other
    if isinstance(last, OpaqueError):
        refused = CaptureError(
            f"{refused.what}; and no graph can call that submodule: {last}",
            where=refused.where,
            remedy=refused.remedy,
        )
    raise refused from error


def traced(
    module: nn.Module,
    call: Call,
    dynamic: Dynamic,
    lines: bool,
    values: Specialize | None = None,
    opaque: OpaqueSubmodules | None = None,
) -> Exported:
    """Make one attempt.

    All arguments are passed as one dict, so that their names cannot collide with parameters of
    torch.export.

    Args:
        module: The module under its original class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        lines: Whether to record the source line of each node.
        values: Provides the values of tensors that the model reads; None to provide none.
        opaque: The submodules that are called as they are; None if there are none.
    """
    shapes = (dynamic_shapes(call, dynamic),) if dynamic else None

    def trace() -> Exported:
        arguments = (stand_ins(call.exported),)
        boundary = Boundary(module, call)
        entered = entered_with_dict(module, boundary, values, opaque)
        replaced = opaque.replaced() if opaque else contextlib.nullcontext()
        with entered, replaced, isolated(lines), Preserved(module):
            program = torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
        read = frozenset(values.read if values else ())
        return Exported(program, read, boundary, opaque.calls if opaque else ())

    return without_draws(trace)


@contextlib.contextmanager
def entered_with_dict(
    module: nn.Module,
    boundary: Boundary,
    values: Specialize | None,
    opaque: OpaqueSubmodules | None,
) -> Iterator[None]:
    """Makes ``module`` callable with one dict, with replacements for calls that fail to trace."""

    def enter(arguments: dict[str, Any]) -> Any:  # torch records only frames called "forward"
        accept_any_keyword()
        if opaque is not None:
            opaque.begin()
        replacements = Replacements()
        with values or contextlib.nullcontext(), replacements:
            if values is not None:
                named = named_leaves(arguments)
                values.learn({path: leaf for path, leaf in named if isinstance(leaf, Tensor)})
            result = boundary.run(dict(arguments))
        replacements.foreign_memory.require_unchanged()
        return result

    before = vars(module).get("forward")
    module.forward = enter
    try:
        yield
    finally:
        set_forward(module, before)


def dynamic_shapes(call: Call, dynamic: Dynamic) -> dict[str, Any]:
    """For each argument, the sizes that may vary if the model allows it."""
    paths = iter(call.paths)

    def open_sizes(leaf: Any) -> dict[int, Any] | None:
        dims = dynamic.get(next(paths)) if isinstance(leaf, Tensor) else None
        return dict.fromkeys(sorted(dims), Dim.AUTO) if dims else None

    leaves, tree = tree_flatten(call.exported)
    return tree_unflatten([open_sizes(leaf) for leaf in leaves], tree)


def has_unknown_sizes(exported: ExportedProgram) -> bool:
    """Return whether the graph has tensors of data-dependent shapes."""
    return any(has_unknown_size(value_of(n)) for n in exported.graph.nodes if is_tensor(n))


def refusal(module: nn.Module, error: Exception) -> CaptureError:
    """Return the CaptureError for the ``error`` of a trace, with the source line and a remedy."""
    return CaptureError(
        f"torch.export cannot capture {type(module).__name__}: {reason_of(error)}",
        where=source_line(error),
        remedy=remedy_for(module),
    )


def as_original(module: nn.Module, original: type[nn.Module]) -> nn.Module:
    """A stand-in for ``module`` that has its original class and shares weights and submodules.

    The optimised module itself keeps its class, so that calls from other threads still go through
    fxcache. The stand-in has no hooks, because the hooks of the root run around every call anyway.
    """
    stand_in: nn.Module = object.__new__(original)  # FSDP's own __new__ calls __init__
    hidden = {"forward", "_compiled_call_impl", STATE_KEY}
    attributes = vars(module).items()
    stand_in.__dict__.update((k, v) for k, v in attributes if k not in hidden)
    forget_hooks(stand_in)
    return stand_in


def stand_ins(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with each tensor replaced by an empty tensor of its shape and dtype.

    Tracing identifies tensors by object identity. So a tensor that is passed twice, or that is
    also a buffer of the model, would become a single input.
    """
    return tree_map_only(Tensor, torch.empty_like, arguments)


def remedy_for(module: nn.Module) -> str:
    """Return the most likely remedy for a failed trace of ``module``."""
    if any(p.is_inference() for p in module.parameters()):
        return "load or move the model outside inference mode: its weights are inference tensors"
    if any("forward" in vars(submodule) for submodule in module.modules()):
        return (
            "remove the hooks from its submodules; those of accelerate and diffusers that offload "
            "or cast weights may stay"
        )
    return (
        "check that the model itself accepts these inputs; if it does, change that line so that it "
        "neither branches on tensor values nor leaves PyTorch (or report it to the model's authors)"
    )


def reason_of(error: Exception) -> str:
    """Return why a trace failed, in one line."""
    return str(error) if isinstance(error, UntraceableError) else first_line(error)


def first_line(error: Exception) -> str:
    """Return the type and the first line of the message of ``error``."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
