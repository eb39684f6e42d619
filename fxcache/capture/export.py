"""torch.export of one call, on stand-ins for the module and for the tensors it is given."""

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
    without_lines,
)
from fxcache.call import Call, named_leaves
from fxcache.capture.boundary import Boundary
from fxcache.capture.isolation import isolated
from fxcache.capture.preserve import preserved
from fxcache.capture.randomness import without_draws
from fxcache.capture.replacements import Replacements, UntraceableError
from fxcache.capture.source import source_line
from fxcache.capture.specialize import Specialize
from fxcache.errors import CaptureError
from fxcache.program import OURS, has_unknown_size, is_tensor, value_of

Dynamic = Mapping[str, Set[int]]


class Exported(NamedTuple):
    """torch.export's graph, and the paths of the inputs whose values it was specialised on.

    ``boundary``: what it knows of the call's results.
    """

    program: ExportedProgram
    specialized: frozenset[str]
    boundary: Boundary


def export(module: nn.Module, call: Call, dynamic: Dynamic, lines: bool = False) -> Exported:
    """torch.export's graph for ``call``, in its training form: composite ops kept whole.

    Where the model branches on values, or shapes depend on them, a second attempt knows the values
    of the call's conditioning, and the graph is good for these values only.

    The nodes know their ``lines`` in the model's source only where that is asked for.
    """
    with contextlib.suppress(Exception):  # the second attempt says what is wrong
        exported = traced(module, call, dynamic, lines)
        if not has_unknown_sizes(exported.program):
            return exported
    try:
        return specialized(module, call, dynamic, lines)
    except CaptureError:
        raise
    except Exception as error:
        raise refusal(module, error) from error


def traced(
    module: nn.Module,
    call: Call,
    dynamic: Dynamic,
    lines: bool,
    values: Specialize | None = None,
) -> Exported:
    """One attempt; ``values`` are what the model finds where it reads tensors.

    All arguments are passed as one dict: their names cannot be those of torch.export's own.
    """
    shapes = (dynamic_shapes(call, dynamic),) if dynamic else None

    def trace() -> Exported:
        arguments = (stand_ins(call.exported),)
        boundary = Boundary(module, call)
        noting = contextlib.nullcontext() if lines else without_lines()
        with entered_with_dict(module, boundary, values), isolated(), noting, preserved(module):
            program = torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
        return Exported(program, frozenset(values.read if values else ()), boundary)

    return without_draws(trace)


@contextlib.contextmanager
def entered_with_dict(
    module: nn.Module, boundary: Boundary, values: Specialize | None
) -> Iterator[None]:
    """Lets a stand-in be called with one dict, and corrects what torch.export gets wrong inside."""

    def enter(arguments: dict[str, Any]) -> Any:  # torch records only frames called "forward"
        accept_any_keyword()
        replacements = Replacements()
        with values or contextlib.nullcontext(), replacements:
            if values is not None:
                found = named_leaves(arguments)
                values.learn({path: leaf for path, leaf in found if isinstance(leaf, Tensor)})
            result = boundary.run(dict(arguments))
        replacements.foreign_memory.require_unchanged()
        return result

    module.forward = enter
    try:
        yield
    finally:
        del module.forward


def dynamic_shapes(call: Call, dynamic: Dynamic) -> dict[str, Any]:
    """For each argument, the sizes that torch.export leaves open if the model allows it."""
    paths = iter(call.paths)

    def open_sizes(leaf: Any) -> dict[int, Any] | None:
        dims = dynamic.get(next(paths)) if isinstance(leaf, Tensor) else None
        return dict.fromkeys(sorted(dims), Dim.AUTO) if dims else None

    leaves, tree = tree_flatten(call.exported)
    return tree_unflatten([open_sizes(leaf) for leaf in leaves], tree)


def specialized(module: nn.Module, call: Call, dynamic: Dynamic, lines: bool) -> Exported:
    """One attempt in which the model finds true values wherever it reads a tensor.

    These are the values of the call's conditioning, and whatever depends on no input at all.
    """
    return traced(module, call, dynamic, lines, Specialize(call.readable()))


def has_unknown_sizes(exported: ExportedProgram) -> bool:
    """Whether shapes in the graph depend on values."""
    return any(has_unknown_size(value_of(n)) for n in exported.graph.nodes if is_tensor(n))


def refusal(module: nn.Module, error: Exception) -> CaptureError:
    """The ``error`` of a trace as ours: the model's line, and what may help."""
    reason = str(error) if isinstance(error, UntraceableError) else first_line(error)
    return CaptureError(
        f"torch.export cannot capture {type(module).__name__}: {reason}",
        where=source_line(error),
        remedy=remedy_for(module),
    )


def as_original(module: nn.Module, original: type[nn.Module]) -> nn.Module:
    """``module`` under its original class: the same weights and submodules, another root object.

    An optimised module keeps its class meanwhile, so that calls from other threads are not let
    past fxcache. The root's own hooks stay out: they run around every call anyway.
    """
    stand_in: nn.Module = object.__new__(original)  # FSDP's own __new__ calls __init__
    hidden = {"forward", "_compiled_call_impl", OURS}
    held = vars(module).items()
    stand_in.__dict__.update((k, v) for k, v in held if k not in hidden)
    forget_hooks(stand_in)
    return stand_in


def stand_ins(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with each tensor replaced by an empty one of its kind.

    Tracing knows tensors by identity: one passed twice, or that the model holds as a buffer, would
    become one input.
    """
    return tree_map_only(Tensor, torch.empty_like, arguments)


def remedy_for(module: nn.Module) -> str:
    if any(p.is_inference() for p in module.parameters()):
        return "its weights were made in inference mode: load or move the model outside of it"
    if any("forward" in vars(submodule) for submodule in module.modules()):
        return (
            "take the hooks off its submodules (offloading block by block moves weights while the "
            "model runs), or hook the whole model instead, as enable_model_cpu_offload does"
        )
    return (
        "check that the model itself takes these inputs; if it does, that line must not branch on "
        "tensor values or leave PyTorch (report it if the model is not yours to change)"
    )


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
