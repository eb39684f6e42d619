"""Traces operators on tensors that wrap others, where torch's tracer gives up."""

import contextlib
from collections.abc import Iterator
from typing import Any

# Why: the tracer is a mode that torch keeps on a stack of its own. Nothing public reaches it.
from torch._ops import _pop_mode_from_pre_dispatch, _set_mode_pre_dispatch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_flatten

from fxcache._torch.operators import is_composite

__all__ = ["dispatching_to_classes"]


@contextlib.contextmanager
def dispatching_to_classes() -> Iterator[None]:
    """Lets the class of a wrapper compute each operator inside the block, which is in a trace.

    Why: before dispatch, torch's tracer declines such an operator, and torch then fails instead of
    asking the class as it does after dispatch.
    """
    mode: Any = get_proxy_mode()
    original = mode.__torch_dispatch__

    def dispatch(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = original(func, types, args, kwargs)
        if result is not NotImplemented:
            return result
        with put_back(mode):
            return computed_by_class(func, types, args, kwargs)

    mode.__torch_dispatch__ = dispatch  # of this one trace
    try:
        yield
    finally:
        del mode.__torch_dispatch__


@contextlib.contextmanager
def put_back(mode: Any) -> Iterator[None]:
    """Lets ``mode`` trace the operators inside the block, although it handles one itself."""
    _set_mode_pre_dispatch(mode)
    try:
        yield
    finally:
        _pop_mode_from_pre_dispatch()


def computed_by_class(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of an operator as the classes of its wrapped tensors compute it."""
    if is_composite(func):
        return func.decompose(*args, **kwargs)
    leaves: list[Any] = tree_flatten((args, kwargs))[0]
    kinds: dict[Any, None] = {type(v): None for v in leaves if is_traceable_wrapper_subclass(v)}
    for kind in kinds:
        result = kind.__torch_dispatch__(func, types, args, kwargs)
        if result is not NotImplemented:
            return result
    return NotImplemented
