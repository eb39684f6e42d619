"""How snapshots are taken of objects of each type."""

import functools
import threading
from collections import deque
from contextvars import ContextVar
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from fxcache.capture.containers import is_a, is_definition_type

OPAQUE = frozenset({"torch", "logging", "fxcache"})  # objects of these packages are left alone


class Kind:
    """How to take snapshots of the objects of one type. It is computed once for each type."""

    def __init__(self, kind: type) -> None:
        self.kind = kind  # keeps the type alive, so that no other type gets its id
        self.skipped = issubclass(kind, (nn.Module, Tensor))
        self.is_definition = is_definition_type(kind)
        self.is_cell = kind is CellType
        self.is_context_variable = kind is ContextVar
        self.is_dict = issubclass(kind, dict)
        self.is_sequence = issubclass(kind, (list, deque))
        self.is_cache = issubclass(kind, functools._lru_cache_wrapper)
        self.is_set = issubclass(kind, set)
        self.is_tuple = issubclass(kind, tuple)
        self.is_partial = issubclass(kind, functools.partial)
        self.is_opaque = str(kind.__module__).partition(".")[0] in OPAQUE
        self.slots = slots_of(kind)


def attributes_of(value: Any) -> Any:
    """The ``__dict__`` of an object, without running code of its class; None if it has none."""
    base: Any = threading.local if is_a(value, threading.local) else object
    try:
        return base.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def slots_of(kind: type) -> list[str]:
    """Return the attributes in the ``__slots__`` of a class and its bases."""
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def state_of_code(value: Any) -> list[Any]:
    """The state that a function keeps between calls: its closure, attributes and defaults."""
    if is_a(value, property):
        return [value.fget]
    if is_a(value, MethodType):
        return [value.__func__, value.__self__]
    if not is_a(value, FunctionType):
        return [value.__func__] if hasattr(type(value), "__func__") else []
    if not is_users_function(value):
        return []
    return [*(value.__closure__ or ()), vars(value), *(value.__defaults__ or ())]


def is_users_function(value: Any) -> bool:
    """Return whether ``value`` is a Python function outside of the packages that are left alone."""
    if not is_a(value, FunctionType) or value.__module__ is None:
        return False
    return value.__module__.partition(".")[0] not in OPAQUE


OF_DICTS = Kind(dict)
