"""The one module that touches private torch APIs. Each entry says why and what it was tested on.

Tested: torch 2.13.0 (CPU build) and 2.11.0 (CUDA build, on the CPU).
"""

import contextlib
import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

# Why: results of compiled graphs may be overwritten when a captured CUDA graph is replayed, those
# of eager operators are not. In a frame that Dynamo skips, this callback is set where it compiles
# what the frame calls; nothing public tells.
from torch._C._dynamo.eval_frame import get_eval_frame_callback as compiler_callback

# Why: models built under it have no values to read, and nothing public tells.
# And: running a model without computing takes such tensors, and nothing public makes them.
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, is_fake

# Why: what a trace leaves behind is known by these, and nothing public names them.
from torch.fx.experimental.proxy_tensor import _AttrProxy as ModuleProxy
from torch.fx.experimental.proxy_tensor import get_proxy_mode

# Why: computing true values beside a trace must not be traced; nothing public suspends the trace.
from torch.utils._python_dispatch import _disable_current_modes as no_dispatch_modes

# Why: torch.export flattens inputs and outputs with this pytree, and has no public spelling of it.
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten
from torch.utils.hooks import RemovableHandle

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "ModuleProxy",
    "TreeSpec",
    "accept_any_keyword",
    "base_of",
    "compiled_original",
    "compiler_callback",
    "copy_all",
    "expression_of",
    "fake_mode_for",
    "forget_hooks",
    "guards_of",
    "hidden_from_dynamo",
    "hint_of",
    "hook_dicts",
    "hooks_of",
    "is_fake",
    "is_vmap_step",
    "is_vmapped",
    "no_dispatch_modes",
    "num_registered_hooks",
    "replace_tensor",
    "returns_view",
    "same_memory",
    "schedule_tensor",
    "traced_constants",
    "tree_flatten",
    "tree_map_only",
    "tree_unflatten",
    "untraced",
    "version_of",
    "weight_kind",
    "weight_kind_and_version",
    "without_lines",
    "writes",
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


def accept_any_keyword() -> None:
    """Let traced modules take a keyword that is called ``mod``. To be called inside a trace.

    Why: for the length of a trace, fx puts a function ``(mod, *args, **kwargs)`` in the place of
    ``nn.Module.__call__``. It makes one for each trace, and only that one is changed here.
    """
    wrapper: Any = nn.Module.__call__
    if wrapper.__globals__ is vars(torch.fx._symbolic_trace):
        wrapper.__code__ = wrapper.__code__.replace(co_posonlyargcount=1)


@contextlib.contextmanager
def without_lines() -> Iterator[None]:
    """Traces that begin inside it note no source line for their nodes. One thread at a time.

    Why: noting them takes a fifth of the time of a trace, and only errors tell them.
    """
    config: Any = torch.fx.config
    if not hasattr(config, "do_not_emit_stack_traces"):  # torch 2.11
        yield
        return
    before = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def traced_constants() -> dict[str, Tensor]:
    """The real tensors that the trace in progress has met, by their names in its graph.

    Why: tensors that are made from NumPy arrays are hidden there while the model runs.
    """
    mode: Any = get_proxy_mode()
    root = getattr(getattr(mode, "tracer", None), "root", None)
    attributes = {} if root is None else vars(root)
    return {k: v for k, v in attributes.items() if isinstance(v, Tensor) and not is_fake(v)}


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Inside it, operations run on real tensors and leave no trace.

    Why: as for ``no_dispatch_modes``; this one also suspends the modes that see torch functions.
    """
    with no_dispatch_modes(), torch._C.DisableTorchFunction():
        yield


def compiled_original(module: nn.Module) -> nn.Module | None:
    """The module inside torch.compile's wrapper; None for any other module.

    Why: the wrapper keeps it in ``_orig_mod``, and only that name tells.
    """
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else None


def hook_dicts(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The dictionaries in which ``module`` keeps the hooks that run around its ``forward``.

    Why: there is no public way to ask for hooks, and tracing follows them.
    """
    return (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )


def hooks_of(module: nn.Module) -> list[tuple[str, Callable[..., Any], bool, bool]]:
    """The hooks set on ``module`` itself: kind, function, with kwargs?, even after errors?

    Why: as for ``hook_dicts``.
    """
    kinds = ("pre", "post", "backward pre", "backward")
    kwargs = (module._forward_pre_hooks_with_kwargs, module._forward_hooks_with_kwargs, (), ())
    always = module._forward_hooks_always_called
    return [
        (kind, hook, number in passed, number in always)
        for kind, hooks, passed in zip(kinds, hook_dicts(module), kwargs, strict=True)
        for number, hook in hooks.items()
    ]


def replace_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put ``tensor`` in place of the parameter or buffer ``name``, while other threads read it.

    Why: the public way deletes and registers, and a thread that reads in between finds nothing.
    ``getattr`` looks among the parameters, then among the buffers, and fails if an entry goes
    between its test and its read. So the new entry comes first, and where the kind of tensor
    changes, the old entry goes with its whole dictionary, by one assignment.
    """
    kept = name in module._parameters
    if isinstance(tensor, nn.Parameter):
        if kept:
            module._parameters[name] = tensor
            return
        module._parameters = {**module._parameters, name: tensor}
        module._buffers = {k: v for k, v in module._buffers.items() if k != name}
        module._non_persistent_buffers_set.discard(name)
    elif kept:
        module._non_persistent_buffers_set.add(name)
        module._buffers = {**module._buffers, name: tensor}
        module._parameters = {k: v for k, v in module._parameters.items() if k != name}
    else:
        module._buffers[name] = tensor


def num_registered_hooks() -> int:
    """How many hooks were ever registered in this process.

    Why: no public event tells of a new hook. Each one takes the next number of this counter, so
    that one comparison shows that none was registered on any module.
    """
    return RemovableHandle.next_id


def forget_hooks(module: nn.Module) -> None:
    """Leave ``module`` without forward hooks; another object that shared them keeps them.

    Why: a hook can be taken off only by the handle that its owner holds.
    """
    module._forward_pre_hooks = OrderedDict()
    module._forward_hooks = OrderedDict()


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that ``tensor`` is a view of; None for what is no view, or made in inference mode.

    Why: as for ``schedule_tensor``.
    """
    return tensor._base


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


def is_vmap_step(op: object) -> bool:
    """Whether ``op`` enters, leaves or prepares a ``torch.vmap`` in a graph.

    Why: torch.export records the steps of vmap as calls of private functions with side effects.
    """
    return getattr(op, "__module__", None) == "torch._functorch.predispatch"


def is_vmapped(tensor: Tensor) -> bool:
    """Whether ``tensor`` stands for a batch inside ``torch.vmap``: it has no storage of its own.

    Why: there is no public way to ask.
    """
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def fake_mode_for(tensors: Iterable[Tensor]) -> FakeTensorMode:
    """The mode that ``tensors`` are fake under, or a new one that takes real weights as they are.

    Why: one run cannot mix two modes, and a fake tensor's own is an attribute of it.
    """
    for tensor in tensors:
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors, traced ones included, share their storage, or may: inside vmap.

    Why: a traced tensor has no address; only the storage's own identity tells.
    """
    if is_vmapped(first) or is_vmapped(second):
        return True
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


# As attribute getters, since all weights of a model are compared when a run starts.
# Why: as for ``version_of``.
weight_kind = operator.attrgetter("shape", "dtype", "device")
weight_kind_and_version = operator.attrgetter("shape", "dtype", "device", "_version")


def copy_all(buffers: list[Tensor], values: list[Tensor]) -> None:
    """Copy each of ``values`` into one of ``buffers``, of the same shape.

    Why: one launch for many small tensors; torch has no public spelling of its batched operators.
    """
    if len(buffers) == 1:
        buffers[0].copy_(values[0])
    elif buffers:
        torch._foreach_copy_(buffers, values)
