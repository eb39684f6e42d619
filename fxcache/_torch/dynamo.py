"""Controls which functions Dynamo skips and compiles."""

import functools
import sys
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

# Why: the replay of a CUDA graph may overwrite results of compiled graphs, but not of eager
# operators. In a frame that Dynamo skips, this callback is set if Dynamo compiles the functions
# that the frame calls. There is no public way to find out.
from torch._C._dynamo.eval_frame import get_eval_frame_callback as compiler_callback

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "compile_ns",
    "compiled_original",
    "compiler_callback",
    "exports_here",
    "freezes_inputs",
    "hidden_from_dynamo",
    "keep_address",
]


def exports_here() -> bool:
    """Return whether torch.export is tracing in this thread, which then has open modes.

    Why: the public flag is shared by all threads of the process.
    """
    return torch.compiler.is_exporting() and torch._C._len_torch_dispatch_stack() > 0


def compile_ns() -> int:
    """Return the nanoseconds that Dynamo and its compilers have spent in this process so far.

    Why: there is no public way to find out how much of a call was compilation.
    """
    utils = sys.modules.get("torch._dynamo.utils")
    return int(utils.cumulative_time_spent_ns.get("entire_frame_compile", 0)) if utils else 0


def hidden_from_dynamo(function: F, recursive: bool = True) -> F:
    """Return ``torch.compiler.disable(function, recursive)``, made safe for all threads.

    Why: while any thread exports, the wrapper refuses calls. If it is recursive, it annotates the
    nodes that the other thread traces instead, and the annotation stays. Dynamo recognises the
    wrapper by its code object. So the same code runs with globals in which "exporting" refers to
    this thread.

    In every call, Dynamo would look again at the frames of a function that is not hidden with all
    that it calls, which takes longer than all of the dispatch. ``skip_code`` marks them once.
    """
    if not recursive:
        for seen in (function, exports_here):
            torch._dynamo.eval_frame.skip_code(seen.__code__)
    wrapper: Any = torch.compiler.disable(function, recursive=recursive)
    view = SimpleNamespace(compiler=SimpleNamespace(is_exporting=exports_here))
    names = {**wrapper.__globals__, "torch": view}
    own: Any = FunctionType(wrapper.__code__, names, wrapper.__name__, None, wrapper.__closure__)
    functools.update_wrapper(own, function)
    own.__dict__.update(wrapper.__dict__)
    own._torchdynamo_wrapper_id = id(own)
    return own


def keep_address(buffer: Tensor) -> None:
    """Tell Dynamo that ``buffer`` keeps its address, so that captured CUDA graphs use it in place.

    Why: there is no public name. A graph is captured again if the address changes. Dynamo would
    make a constant of the buffer if the graph is to be frozen.
    """
    if not freezes_inputs():
        torch._dynamo.mark_static_address(buffer, guard=False)


def freezes_inputs() -> bool:
    """Return whether Dynamo makes constants of tensors with static addresses.

    Why: Inductor's option is private.
    """
    config = sys.modules.get("torch._inductor.config")
    return bool(config and config.freezing)


def compiled_original(module: nn.Module) -> nn.Module | None:
    """Return the module inside torch.compile's wrapper; None for any other module.

    Why: the wrapper holds the module only in its private attribute ``_orig_mod``.
    """
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else None
