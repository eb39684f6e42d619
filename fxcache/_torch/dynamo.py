"""What Dynamo skips, and what it compiles."""

import functools
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import nn

# Why: results of compiled graphs may be overwritten when a captured CUDA graph is replayed, those
# of eager operators are not. In a frame that Dynamo skips, this callback is set where it compiles
# what the frame calls; nothing public tells.
from torch._C._dynamo.eval_frame import get_eval_frame_callback as compiler_callback

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "compiled_original",
    "compiler_callback",
    "exports_here",
    "hidden_from_dynamo",
]


def exports_here() -> bool:
    """Whether torch.export is tracing in this thread: then modes are open in it.

    Why: the flag that says so is the whole process's.
    """
    return torch.compiler.is_exporting() and torch._C._len_torch_dispatch_stack() > 0


def hidden_from_dynamo(function: F, recursive: bool = True) -> F:
    """``torch.compiler.disable(function, recursive)``, for calls from any thread.

    Why: while any thread exports, the wrapper refuses calls, or, if it is recursive, annotates the
    nodes that the other thread traces and leaves its annotation behind. Dynamo knows it by its
    code, so the same code runs where "exporting" means this thread.
    """
    wrapper: Any = torch.compiler.disable(function, recursive=recursive)
    view = SimpleNamespace(compiler=SimpleNamespace(is_exporting=exports_here))
    seen = {**wrapper.__globals__, "torch": view}
    own: Any = FunctionType(wrapper.__code__, seen, wrapper.__name__, None, wrapper.__closure__)
    functools.update_wrapper(own, function)
    own.__dict__.update(wrapper.__dict__)
    own._torchdynamo_wrapper_id = id(own)
    return own


def compiled_original(module: nn.Module) -> nn.Module | None:
    """The module inside torch.compile's wrapper; None for any other module.

    Why: the wrapper keeps it in ``_orig_mod``, and only that name tells.
    """
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else None
