"""Access to traces of torch.export: modes, fake tensors and process-wide settings."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Why: fake tensors have no values to read, and running a model without computing needs them.
# There is no public way to recognise or make them.
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, is_fake
from torch.fx import GraphModule

# Why: a trace may leave objects of these types behind, which have no public names.
from torch.fx.experimental.proxy_tensor import _AttrProxy as ModuleProxy
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.fx.graph import CodeGen

# Why: true values are computed during a trace without being traced. No public way suspends it.
from torch.utils._python_dispatch import _disable_current_modes as no_dispatch_modes

__all__ = [
    "ModuleProxy",
    "accept_any_keyword",
    "fake_mode_for",
    "is_fake",
    "is_transformed",
    "is_vmapped",
    "no_dispatch_modes",
    "traced_constants",
    "unnoticed_buffers",
    "untraced",
    "with_code",
    "without_code",
    "without_lines",
]


def accept_any_keyword() -> None:
    """Let traced modules accept a keyword ``mod``. Call this inside a trace.

    Why: during a trace, fx replaces ``nn.Module.__call__`` by a function with the parameters
    ``(mod, *args, **kwargs)``. Each trace has its own function, and only that one is changed.
    """
    wrapper: Any = nn.Module.__call__
    if wrapper.__globals__ is vars(torch.fx._symbolic_trace):
        wrapper.__code__ = wrapper.__code__.replace(co_posonlyargcount=1)


@contextlib.contextmanager
def unnoticed_buffers() -> Iterator[None]:
    """Keep a trace from noticing buffers that the model assigns inside the block.

    Why: torch.export copies an assigned buffer of the root module into the old one, which fails if
    there was none or if it had another shape. It has no option for that, and ignores submodules.
    """
    hooks: Any = torch.nn.modules.module._global_buffer_registration_hooks
    removed = {key: hook for key, hook in hooks.items() if "aot_autograd" in hook.__module__}
    for key in removed:
        del hooks[key]
    yield
    hooks.update(removed)  # not after an error, when torch 2.11 would leave them there


@contextlib.contextmanager
def without_lines() -> Iterator[None]:
    """Disable source lines of nodes in traces that begin inside the block. One thread at a time.

    Why: source lines take a fifth of the time of a trace, and only errors need them.
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


@contextlib.contextmanager
def without_code() -> Iterator[None]:
    """Delay the Python code of graphs that this thread makes inside the block until they run.

    Why: torch.export writes and compiles the code of each graph six times, functionalisation twelve
    times, a sixth of the time of a trace. Nothing runs that code, and nothing public prevents it.
    """
    before: Any = GraphModule.recompile
    thread: int | None = threading.get_ident()

    def recompile(graph: Any) -> Any:
        if threading.get_ident() != thread or type(graph.graph._codegen) is not CodeGen:
            return before(graph)  # others have a signature of their own, which torch reads
        kind: Any = type(graph)  # each graph has a class of its own
        kind.forward, kind._code = run, property(code, set_code)
        for inner in graph.children():
            if isinstance(inner, GraphModule):
                inner.recompile()
        return None

    def run(graph: Any, *args: Any, **kwargs: Any) -> Any:
        before(graph)
        return graph.forward(*args, **kwargs)

    def code(graph: Any) -> str:
        before(graph)
        return graph._code

    def set_code(graph: Any, value: str) -> None:
        del type(graph)._code  # the property
        graph.__dict__["_code"] = value

    patched: Any = GraphModule
    patched.recompile = recompile
    try:
        yield
    finally:
        thread = None  # another patch may have kept it
        if patched.recompile is recompile:
            patched.recompile = before


def with_code(module: Any) -> Any:
    """Return ``module``, with the code that ``without_code`` left out, also of inner graphs."""
    if isinstance(module, GraphModule):
        module.recompile()
    return module


def traced_constants() -> dict[str, Tensor]:
    """Return the real tensors in the current trace, by their names in its graph.

    Why: there is no public way to find tensors that were made from NumPy arrays during a trace.
    """
    mode: Any = get_proxy_mode()
    root = getattr(getattr(mode, "tracer", None), "root", None)
    attributes = {} if root is None else vars(root)
    return {k: v for k, v in attributes.items() if isinstance(v, Tensor) and not is_fake(v)}


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Run operations inside the block on real tensors, without tracing them.

    Why: as for ``no_dispatch_modes``. This also suspends modes for torch functions.
    """
    with no_dispatch_modes(), torch._C.DisableTorchFunction():
        yield


def is_vmapped(tensor: Tensor) -> bool:
    """Return whether ``tensor`` represents a batch inside ``torch.vmap`` and has no storage.

    Why: there is no public way to find out.
    """
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_transformed() -> bool:
    """Return whether a transform of torch.func or forward-mode differentiation is active.

    Why: as for ``is_vmapped``.
    """
    stack: Any = torch._C._functorch.peek_interpreter_stack()
    return stack is not None or torch.autograd.forward_ad._current_level >= 0


def fake_mode_for(tensors: Iterable[Tensor]) -> FakeTensorMode:
    """Return the fake mode of ``tensors``, or a new one that accepts real weights.

    Why: one run cannot mix two modes, and a fake tensor has its mode in a private attribute.
    """
    for tensor in tensors:
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)
