"""Weights of special classes: those that wrap plain tensors, and those with Python attributes."""

import contextlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Why: fake tensors have no public name.
from torch._subclasses.fake_tensor import FakeTensor

# Why: wrapper subclasses are recognised by a private function.
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fxcache._torch.distributed import is_dtensor

__all__ = [
    "bare",
    "is_special",
    "is_wrapper",
    "plain_parts",
    "rebuilt",
    "without_overrides",
]

ORDINARY = frozenset({Tensor, nn.Parameter, nn.Buffer})
DEFAULT_OVERRIDES = (Tensor.__torch_function__, torch._C._disabled_torch_function_impl)
Refuse = Callable[[str], Exception]


def is_special(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is of a class with behaviour or attributes of its own.

    A DTensor is not: its class only says which part of it this process holds.
    """
    kind = type(tensor)
    return kind not in ORDINARY and not issubclass(kind, FakeTensor) and not is_dtensor(tensor)


def is_wrapper(tensor: Tensor) -> bool:
    """Return whether ``tensor`` consists of other tensors, as the quantised ones of torchao do."""
    return is_traceable_wrapper_subclass(tensor)


def without_overrides() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which no class replaces the functions of torch.

    Why: the attributes of tensors whose class does are a hundred times slower. No public way.
    """
    return torch._C.DisableTorchFunctionSubclass()


def bare(tensor: Tensor) -> Tensor:
    """Return a plain tensor with the memory and the version counter of ``tensor``.

    Why: ``as_subclass`` and ``detach`` may call functions of the class. No public way avoids them.
    """
    with without_overrides():
        return torch.Tensor._make_subclass(Tensor, tensor, tensor.requires_grad)


def plain_parts(tensor: Tensor) -> dict[str, Tensor]:
    """Return the plain tensors that ``tensor`` consists of, by the suffix of their names.

    ``{"": tensor}`` for a tensor of an ordinary class, ``{".qdata": …, ".scale": …}`` for one that
    wraps others, and an alias for one with attributes.
    """
    if not is_special(tensor):
        return {"": tensor}
    if not is_wrapper(tensor):
        return {"": bare(tensor)}
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = ((f".{name}", getattr(tensor, name)) for name in names)
    return {prefix + suffix: t for prefix, v in inner for suffix, t in plain_parts(v).items()}


def rebuilt(tensor: Tensor, parts: Mapping[str, Tensor], refuse: Refuse) -> Tensor:
    """Return a tensor like ``tensor`` that consists of ``parts``, which may be fake.

    Args:
        tensor: The tensor.
        parts: As ``plain_parts`` returns them.
        refuse: Makes the error for a function of torch that the class replaces.
    """
    if not is_special(tensor):
        return parts[""]
    if not is_wrapper(tensor):
        return with_class_of(tensor, parts[""], refuse)
    names, metadata = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = {
        name: rebuilt(
            getattr(tensor, name),
            {k.removeprefix(f".{name}"): t for k, t in parts.items() if starts(k, f".{name}")},
            refuse,
        )
        for name in names
    }
    kind: Any = type(tensor)
    made = kind.__tensor_unflatten__(inner, metadata, tensor.size(), tensor.stride())
    made.requires_grad_(tensor.requires_grad)
    if isinstance(tensor, nn.Parameter):
        made._is_param = True  # Why: nn.Parameter marks tensors of other classes so
    return made


def starts(suffix: str, prefix: str) -> bool:
    """Return whether ``suffix`` is ``prefix``, or names a part inside it."""
    return suffix == prefix or suffix.startswith(f"{prefix}.")


def with_class_of(tensor: Tensor, fake: Tensor, refuse: Refuse) -> Tensor:
    """Give ``fake`` the attributes and the class of ``tensor``, and return it.

    Why: torch.export drops both, so that the model could not read them. A tensor can be fake and
    have the methods of another class only if its class derives from both.
    """
    kind: Any = type(tensor)
    replaced = kind.__torch_function__
    running: list[str] = []
    alias = fake.detach()  # the trace follows it

    def dispatch(_cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:  # by _make_subclass, which leaves the trace
            return alias
        return FakeTensor.__torch_dispatch__(func, types, args, kwargs)

    def override(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name == "__get__" or isinstance(func, torch._ops.OpOverload):  # shape; inside a function
            with without_overrides():
                return func(*args, **(kwargs or {}))
        running.append(name)
        try:
            return replaced.__func__(cls, func, types, args, kwargs)
        finally:
            running.pop()

    def instance(_cls: Any, *_args: Any, **_kwargs: Any) -> Any:
        raise refuse(running[-1] if running else kind.__name__)

    own: dict[str, Any] = {
        "__module__": kind.__module__,
        "__new__": instance,
        "__torch_dispatch__": classmethod(dispatch),
    }
    if replaced not in DEFAULT_OVERRIDES:
        own["__torch_function__"] = classmethod(override)
    made = types.new_class(kind.__name__, (FakeTensor, kind), exec_body=lambda ns: ns.update(own))
    fake.__dict__.update(vars(tensor))
    fake.__class__ = made
    return fake
