"""Runs torch.export for one call, with stand-ins for the module and for the input tensors."""

import contextlib
from collections.abc import Iterator, Mapping, Set
from traceback import clear_frames
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fxcache._torch import (
    accept_any_keyword,
    global_hooks_below,
    tree_flatten,
    tree_unflatten,
)
from fxcache.call import Call
from fxcache.capture.boundary import Boundary
from fxcache.capture.choice import Choice
from fxcache.capture.isolation import isolated, own_context
from fxcache.capture.loading import set_forward
from fxcache.capture.opaque import OpaqueError, OpaqueSubmodules
from fxcache.capture.probe import can_run, probed
from fxcache.capture.randomness import without_draws, without_seeds
from fxcache.capture.refusal import reason_of, refusal
from fxcache.capture.replacements import Replacements
from fxcache.capture.sharding import is_shared
from fxcache.capture.special_weights import SpecialWeights
from fxcache.capture.specialize import Specialize
from fxcache.capture.stand_in import stand_ins
from fxcache.errors import CaptureError
from fxcache.leaves import named_leaves
from fxcache.opaque import OpaqueCall
from fxcache.program import has_unknown_size, is_tensor, value_of

Dynamic = Mapping[str, Set[int]]
MAX_RETRIES = 12  # each costs a trace up to the next submodule that cannot be traced


class Exported(NamedTuple):
    """The result of torch.export for one call.

    Attributes:
        program: The exported program.
        specialized: The paths of the inputs whose values are constants of the graph.
        boundary: The structure of the results of the call.
        names: The names of plain tensors in special weights, by their names in the program.
        opaque: The calls of submodules that are not traced.
    """

    program: ExportedProgram
    specialized: frozenset[str]
    boundary: Boundary
    names: Mapping[str, str]
    opaque: tuple[OpaqueCall, ...] = ()


def export(module: nn.Module, call: Call, dynamic: Dynamic, lines: bool = False) -> Exported:
    """Run torch.export for ``call``. Composite operators stay whole (the training form).

    If a submodule cannot be traced, the graph calls it as it is, unless processes share the model.

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
        refused, choice = refusal(module, error), Choice(module)
        # A trial run of a shared model would wait for processes that make no such run.
        alone = can_run(module, call) and not is_shared(module)
        if not alone or not choice.extend(error, reason_of(error)):
            raise refused from error
        clear_frames(error.__traceback__)
        return with_opaque_submodules(module, call, dynamic, lines, choice, refused)


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
    try:
        exported = traced(module, call, dynamic, lines, opaque=opaque)
        if not has_unknown_sizes(exported.program):
            return exported
    except Exception as error:  # the second attempt reports the error
        clear_frames(error.__traceback__)
    return traced(module, call, dynamic, lines, Specialize(call.readable()), opaque)


def with_opaque_submodules(
    module: nn.Module,
    call: Call,
    dynamic: Dynamic,
    lines: bool,
    choice: Choice,
    refused: CaptureError,
) -> Exported:
    """Return a graph that calls as they are the submodules that cannot be traced.

    The frames of errors are cleared: some refer to the error, so that all that they hold, such as
    the model, would live until the next garbage collection.

    Args:
        module: The module under its original class.
        call: The call to trace.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        lines: Whether to record the source line of each node.
        choice: The submodules; more are chosen if the trace fails elsewhere.
        refused: The error to raise if this is of no help.
    """
    try:
        probe = probed(module, call)
    except Exception:
        raise refused from None  # the model does not accept these inputs
    for _ in range(MAX_RETRIES):
        try:
            return attempted(module, call, dynamic, lines, OpaqueSubmodules(choice, probe))
        except CaptureError:
            raise
        except Exception as error:
            if choice.extend(error, reason_of(error)):
                clear_frames(error.__traceback__)
                continue
            if isinstance(error, OpaqueError):
                what = f"{refused.what}; and no graph can call that submodule: {error}"
                raise CaptureError(what, where=refused.where, remedy=refused.remedy) from None
            break
    raise refused


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
        boundary, special = Boundary(module, call), SpecialWeights(module)
        entered = entered_with_dict(module, boundary, special, values, opaque)
        replaced = opaque.replaced() if opaque else contextlib.nullcontext()
        kept = boundary.effects.undone(module)
        hooks = global_hooks_below(module)
        with entered, replaced, isolated(lines), kept, special.hidden(), without_seeds(), hooks:
            program = own_context(
                torch.export.export, module, arguments, dynamic_shapes=shapes, strict=False
            )
        read = frozenset(values.read if values else ())
        calls = opaque.calls if opaque else ()
        return Exported(program, read, boundary, special.names, calls)

    return without_draws(trace)


@contextlib.contextmanager
def entered_with_dict(
    module: nn.Module,
    boundary: Boundary,
    special: SpecialWeights,
    values: Specialize | None,
    opaque: OpaqueSubmodules | None,
) -> Iterator[None]:
    """Makes ``module`` callable with one dict, with replacements for calls that fail to trace."""

    def enter(arguments: dict[str, Any]) -> Any:  # torch records only frames called "forward"
        accept_any_keyword()
        if opaque is not None:
            opaque.begin()
        replacements = Replacements()
        with special.in_place(), values or contextlib.nullcontext(), replacements:
            if values is not None:
                named = named_leaves(arguments)
                values.learn({path: leaf for path, leaf in named if isinstance(leaf, Tensor)})
            result = boundary.run(dict(arguments))
            special.require_plain(result)
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
