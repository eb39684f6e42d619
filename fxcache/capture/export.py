"""torch.export of one call, on stand-ins for the module and for the tensors it is given."""

import contextlib
import io
import linecache
import threading
import traceback
import warnings
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fxcache._torch import forget_hooks, tree_flatten, tree_map_only, tree_unflatten
from fxcache.call import Call, named_leaves
from fxcache.capture.boundary import Boundary
from fxcache.capture.preserve import preserved
from fxcache.capture.specialize import Specialize
from fxcache.errors import CaptureError
from fxcache.program import OURS, has_unknown_size, is_tensor, value_of

Dynamic = Mapping[str, Set[int]]
ONE_AT_A_TIME = threading.Lock()


class Exported(NamedTuple):
    """torch.export's graph, and the paths of the inputs whose values it was specialised on.

    ``boundary``: what it knows of the call's results.
    """

    program: ExportedProgram
    specialized: frozenset[str]
    boundary: Boundary


def export(module: nn.Module, call: Call, dynamic: Dynamic) -> Exported:
    """torch.export's graph for ``call``, in its training form: composite ops kept whole.

    Where the model branches on values, or shapes depend on them, those of the call's conditioning
    are told to the trace, and the graph is good for these values only.
    """
    try:
        exported = Exported(*traced(module, call, dynamic))
        if not has_unknown_sizes(exported.program):
            return exported
    except Exception as error:
        if not call.readable():
            raise refusal(module, error) from error
    try:
        return specialized(module, call, dynamic)
    except Exception as error:
        raise refusal(module, error) from error


def traced(
    module: nn.Module, call: Call, dynamic: Dynamic
) -> tuple[ExportedProgram, frozenset[str], Boundary]:
    """One attempt, quiet: where it fails, torch.export prints all of the graph.

    One at a time: torch.export keeps global state, and so does redirecting what it prints.
    """
    arguments = stand_ins(call.exported)
    shapes = dynamic_shapes(call, dynamic) if dynamic else None
    silent, quiet = contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings()
    as_is = preserved(module)
    boundary = Boundary(module, call)
    with ONE_AT_A_TIME, silent, quiet, torch.inference_mode(False), torch.no_grad(), as_is:
        # It warns of attributes that the model assigns; as_is puts those back.
        warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
        with boundary.around(module):
            program = torch.export.export(
                module, (), arguments, dynamic_shapes=shapes, strict=False
            )
    return program, frozenset(), boundary


def dynamic_shapes(call: Call, dynamic: Dynamic) -> dict[str, Any]:
    """What torch.export is told of each argument: which sizes to leave open, if the model can."""
    paths = iter(call.paths)

    def open_sizes(leaf: Any) -> dict[int, Any] | None:
        dims = dynamic.get(next(paths)) if isinstance(leaf, Tensor) else None
        return dict.fromkeys(sorted(dims), Dim.AUTO) if dims else None

    leaves, tree = tree_flatten(call.exported)
    return tree_unflatten([open_sizes(leaf) for leaf in leaves], tree)


def specialized(module: nn.Module, call: Call, dynamic: Dynamic) -> Exported:
    """One attempt in which the model finds the call's own values wherever it reads them."""
    mode = Specialize(call.readable())

    def learn(_: nn.Module, __: Any, arguments: dict[str, Any]) -> None:
        found = named_leaves(arguments)
        mode.learn({path: leaf for path, leaf in found if isinstance(leaf, Tensor)})

    handle = module.register_forward_pre_hook(learn, with_kwargs=True)
    try:
        with mode:
            program, _, boundary = traced(module, call, dynamic)
        return Exported(program, frozenset(mode.read), boundary)
    finally:
        handle.remove()


def has_unknown_sizes(exported: ExportedProgram) -> bool:
    """Whether shapes in the graph depend on values."""
    return any(has_unknown_size(value_of(n)) for n in exported.graph.nodes if is_tensor(n))


def refusal(module: nn.Module, error: Exception) -> CaptureError:
    """torch.export's ``error`` as ours: the model's line, and what may help."""
    if isinstance(error, CaptureError):
        return error
    return CaptureError(
        f"torch.export cannot capture {type(module).__name__}: {first_line(error)}",
        where=source_line(error),
        remedy=remedy_for(module),
    )


def as_original(module: nn.Module, original: type[nn.Module]) -> nn.Module:
    """``module`` under its original class: the same weights and submodules, another root object.

    An optimised module keeps its class meanwhile, so that calls from other threads are not let
    past fxcache. The root's own hooks stay out: they run around every call anyway.
    """
    stand_in = original.__new__(original)
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


def source_line(error: Exception) -> str:
    """The innermost line of the model's own code in the traceback: ``file:line: code``."""
    inside = ("/torch/", "/fxcache/capture/", "<eval_with_key>")
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not any(part in f.filename.replace("\\", "/") for part in inside)
    ]
    if not frames:
        return "inside torch.export"
    frame = frames[-1]
    code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{frame.filename}:{frame.lineno}: {code}"
