"""The one module that touches private torch APIs. Each entry says why and what it was tested on.

Tested: torch 2.13.0 (CPU build) and 2.11.0 (CUDA build, on the CPU).
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

# Why: models built under it have no values to read, and nothing public tells.
# And: running a model without computing takes such tensors, and nothing public makes them.
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, is_fake

# Why: computing true values beside a trace must not be traced; nothing public suspends the trace.
from torch.utils._python_dispatch import _disable_current_modes as no_dispatch_modes

# Why: torch.export flattens inputs and outputs with this pytree, and has no public spelling of it.
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "TreeSpec",
    "compiled_original",
    "expression_of",
    "fake_mode_for",
    "forget_hooks",
    "guards_of",
    "hidden_from_dynamo",
    "hint_of",
    "hooks_of",
    "is_fake",
    "no_dispatch_modes",
    "returns_view",
    "same_memory",
    "schedule_tensor",
    "tree_flatten",
    "tree_map_only",
    "tree_unflatten",
    "version_of",
    "writes",
]


def exports_here() -> bool:
    """Whether torch.export is tracing in this thread: then modes are open in it.

    Why: the flag that says so is the whole process's.
    """
    return torch.compiler.is_exporting() and torch._C._len_torch_dispatch_stack() > 0


def hidden_from_dynamo(function: F) -> F:
    """``torch.compiler.disable(function, recursive=False)``, for calls from any thread.

    Why: the wrapper refuses calls while any thread exports. Dynamo knows it by its code, so the
    same code runs where "exporting" means this thread.
    """
    wrapper: Any = torch.compiler.disable(function, recursive=False)
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


def hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The forward hooks and pre-hooks set on ``module`` itself.

    Why: there is no public way to ask for them, and tracing follows them.
    """
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def forget_hooks(module: nn.Module) -> None:
    """Leave ``module`` without forward hooks; another object that shared them keeps them.

    Why: a hook can be taken off only by the handle that its owner holds.
    """
    module._forward_pre_hooks = OrderedDict()
    module._forward_hooks = OrderedDict()


def schedule_tensor(timestep: Tensor) -> Tensor | None:
    """The 1-D tensor of which ``timestep`` is a view, as in ``for t in timesteps``; else None.

    Why: ``_base`` is the only link from a view to its tensor. Inference mode keeps none.
    """
    base = timestep._base
    return base if base is not None and base.dim() == 1 else None


def hint_of(size: Any) -> int | None:
    """``size`` as a number: for one that may vary, what it was at capture; None if never known.

    Why: a symbolic size is turned into an int only by fixing it for good.
    """
    return size if isinstance(size, int) else size.node.hint


def expression_of(size: Any) -> Any:
    """The sympy expression of a size that may vary; the number of one that turned out not to.

    Why: torch.export names relations between sizes in its ranges by these, and gives no way to it.
    """
    return size if isinstance(size, int) else size.node.expr


def guards_of(size: Any) -> list[Any]:
    """The conditions, as sympy expressions, under which the sizes in its graph may vary.

    Why: torch.export's public ranges leave out those between sizes, such as ``height > width``.
    """
    if isinstance(size, int):
        return []
    known = size.node.shape_env
    return [known.simplify(guard.expr) for guard in known.guards]


def fake_mode_for(tensors: Iterable[Tensor]) -> FakeTensorMode:
    """The mode that ``tensors`` are fake under, or a new one that takes real weights as they are.

    Why: one run cannot mix two modes, and a fake tensor's own is an attribute of it.
    """
    for tensor in tensors:
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors, traced ones included, share their storage.

    Why: a traced tensor has no address; only the storage's own identity tells.
    """
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata


def writes(op: object) -> bool:
    """Whether ``op`` is an operator that writes to one of its arguments.

    Why: only an operator's schema tells, and there is no public way to it.
    """
    schema = getattr(op, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def returns_view(op: object) -> bool:
    """Whether ``op`` is an operator whose result may share memory with an argument.

    Why: as for ``writes``.
    """
    schema = getattr(op, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def version_of(tensor: Tensor) -> int:
    """How often ``tensor`` was written in place; 0 for inference tensors, which do not count.

    Why: an in-place change of the conditioning must not go unnoticed.
    """
    return 0 if tensor.is_inference() else tensor._version
