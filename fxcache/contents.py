"""Reads and replaces the contents of state objects, lists, tuples and dicts."""

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from operator import is_
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.errors import CaptureError


class Variables:
    """The global variables of a function. They equal only themselves, whatever they contain."""

    def __init__(self, by_name: dict[str, Any]):
        self.by_name = by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variables) and other.by_name is self.by_name

    def __hash__(self) -> int:
        return id(self.by_name)


PLAIN = (
    *(int, float, complex, str, bytes, Enum, type(None), type, torch.Size),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(CodeType, Variables),
)
UNCHANGEABLE = (tuple, FunctionType)  # containers that are not updated in place
# Instances of these types hold more than their attributes.
OWN_STATE: tuple[Any, ...] = (nn.Module, Tensor, torch.Generator, Callable, list, tuple, dict, set)
CODE, GLOBALS, VALUE = "code of the function", "global variables", "value"


def contents(value: Any, path: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The names and items of a container.

    Raises:
        CaptureError: ``value`` is not a container that fxcache can take apart.
    """
    kind: Any = type(value)
    if kind is dict:
        if not all(isinstance(key, PLAIN) for key in value):
            raise refusal(path, value, "has keys that are neither numbers nor strings")
        return tuple(value), tuple(value.values())
    if kind in (list, tuple) or is_named_tuple(kind):
        return (), tuple(value)
    if kind is FunctionType:
        return parts_of_function(value, path)
    if kind is CellType:
        return part_of_cell(value, path)
    if not is_state_class(kind):
        raise refusal(path, value, "may hold state of its own")
    by_name = attributes(value)
    return tuple(by_name), tuple(by_name.values())


def parts_of_function(function: FunctionType, path: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The code, the global variables and the cells of the closure of a function, with names.

    Functions with the same code and the same globals compute the same from equal closures.
    """
    if function.__defaults__ or function.__kwdefaults__ or function.__dict__:
        raise refusal(path, function, "has defaults or attributes")
    code = function.__code__
    constants = (code, Variables(function.__globals__))
    return (CODE, GLOBALS, *code.co_freevars), (*constants, *(function.__closure__ or ()))


def part_of_cell(cell: CellType, path: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The value of a closure's variable."""
    try:
        return (VALUE,), (cell.cell_contents,)
    except ValueError as error:
        raise refusal(path, cell, "has no value yet") from error


def remade(kind: Any, items: Sequence[Any]) -> Any:
    """A tuple or function of these items."""
    if kind is FunctionType:
        code, variables, *cells = items
        return FunctionType(code, variables.by_name, closure=tuple(cells))
    return kind(*items) if is_named_tuple(kind) else tuple(items)


def has_items(before: Any, items: Sequence[Any]) -> bool:
    """Whether a tuple or function has exactly these items."""
    if isinstance(before, FunctionType):
        code, _, *cells = items
        return before.__code__ == code and all(map(is_, before.__closure__ or (), cells))
    return all(map(is_, before, items))


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object by name, including those in slots."""
    kind: Any = type(value)
    by_name = dict(getattr(value, "__dict__", {}))
    for name in slots(kind):
        if hasattr(value, name):
            by_name[name] = getattr(value, name)
    return by_name


@functools.lru_cache(maxsize=256)
def slots(kind: Any) -> tuple[str, ...]:
    """The names of all slots of a class, with private names mangled."""

    def names() -> Iterator[str]:
        for base in kind.__mro__:
            declared = base.__dict__.get("__slots__", ())
            for name in (declared,) if isinstance(declared, str) else declared:
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name

    return tuple(name for name in names() if name not in ("__dict__", "__weakref__"))


@functools.lru_cache(maxsize=256)
def is_state_class(kind: Any) -> bool:
    """Whether an instance of ``kind`` holds nothing but its attributes.

    The pickle protocol tells: an open file, for example, cannot be pickled.
    """
    if kind in (SimpleNamespace, threading.local):  # of the latter, the values of this thread
        return True
    members = [vars(base) for base in kind.__mro__ if base is not object]
    custom = any("__reduce__" in names or "__reduce_ex__" in names for names in members)
    # An instance that C++ has not initialised, as of a scripted module, may end the process.
    made_by = getattr(kind.__new__, "__self__", object).__module__.partition(".")[0]
    if issubclass(kind, OWN_STATE) or custom or made_by not in sys.stdlib_module_names:
        return False
    try:
        reduced: Any = object.__reduce_ex__(kind.__new__(kind), 2)
    except Exception:
        return False
    return bool(reduced[3:] == (None, None))


def is_named_tuple(kind: type) -> bool:
    """Whether ``kind`` is a NamedTuple class."""
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def refusal(path: str, value: Any, why: str) -> CaptureError:
    """The error for a value at ``path`` that cannot be part of a state object."""
    return CaptureError(
        f"{path} is a {type(value).__name__}, which {why}",
        where=path,
        remedy="pass tensors, numbers and strings, in dicts, lists, tuples or plain objects",
    )


def fill(target: Any, names: tuple[Any, ...], items: list[Any]) -> None:
    """Replace the contents of ``target`` by ``items``, in place."""
    if isinstance(target, list):
        target[:] = items
        return
    new = dict(zip(names, items, strict=True))
    if isinstance(target, dict):
        target.clear()
        target.update(new)
        return
    if isinstance(target, CellType):
        target.cell_contents = new[VALUE]
        return
    kind: Any = type(target)
    instance_dict = getattr(target, "__dict__", None)
    for name in attributes(target).keys() - new.keys():
        object.__delattr__(target, name)
    for name, value in new.items():
        if instance_dict is not None and name not in slots(kind):
            instance_dict[name] = value
        else:
            object.__setattr__(target, name, value)
