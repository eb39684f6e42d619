"""State objects: plain Python objects with tensors in them, which a model may read and write.

A key/value cache is one. Its structure belongs to the key of a capture, its tensors are inputs of
the graph, and those that the model sets are outputs.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.errors import CaptureError

PLAIN = (
    *(int, float, complex, str, bytes, Enum, type(None), type, torch.Size),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
# What such objects do is not in their attributes alone.
OWN_STATE: tuple[Any, ...] = (nn.Module, Tensor, torch.Generator, Callable, list, tuple, dict, set)


@dataclass(frozen=True)
class TensorAt:
    """A tensor, by its number among those of the call and those made during it."""

    index: int


@dataclass(frozen=True)
class Plain:
    """A value that is compared by itself; ``kind`` keeps ``True``, ``1`` and ``1.0`` apart."""

    kind: type
    value: Any


@dataclass(frozen=True)
class Seen:
    """A second reference to the container that was visited as number ``visit``."""

    visit: int


@dataclass(frozen=True)
class Container:
    """An object, list, tuple or dict.

    ``origin``: its number among the containers before the call; None for one made during it.
    ``names``: of attributes, or keys; empty for sequences.
    """

    kind: type
    origin: int | None
    names: tuple[Any, ...]
    items: tuple["Part", ...]


Part = TensorAt | Plain | Seen | Container


@dataclass
class Walk:
    """One pass over objects: their ``containers`` and ``tensors``, in the order of the visit.

    ``tensors`` are known before; others are appended when they are met, with their ``paths``.
    ``origins``: of containers, by id; None where each is its own.
    """

    tensors: list[Tensor]
    origins: dict[int, int] | None = None
    containers: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    _visits: dict[int, int] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _indices: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._indices = {id(tensor): i for i, tensor in enumerate(self.tensors)}

    def part(self, value: Any, path: str) -> Part:
        """The structure of ``value``; CaptureError for what cannot be a part of a state object."""
        if isinstance(value, Tensor):
            return TensorAt(self._index(value, path))
        if isinstance(value, PLAIN):
            return Plain(type(value), value)
        if id(value) in self._open:
            raise refusal(path, value, "contains itself")
        if id(value) in self._visits:
            return Seen(self._visits[id(value)])
        return self._container(value, path)

    def _index(self, tensor: Tensor, path: str) -> int:
        if id(tensor) not in self._indices:
            self._indices[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
            self.paths.append(path)
        return self._indices[id(tensor)]

    def _container(self, value: Any, path: str) -> Container:
        names, items = contents(value, path)
        visit = self._visits[id(value)] = len(self.containers)
        self.containers.append(value)
        origin = visit if self.origins is None else self.origins.get(id(value))
        self._open.add(id(value))
        labels = names or range(len(items))
        pairs = zip(items, labels, strict=True)
        parts = tuple(self.part(item, f"{path}.{label}") for item, label in pairs)
        self._open.remove(id(value))
        return Container(type(value), origin, names, parts)


def contents(value: Any, path: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The names and items of a container; CaptureError for what is none."""
    kind: Any = type(value)
    if kind is dict:
        if not all(isinstance(key, PLAIN) for key in value):
            raise refusal(path, value, "has keys that are neither numbers nor strings")
        return tuple(value), tuple(value.values())
    if kind in (list, tuple) or is_named_tuple(kind):
        return (), tuple(value)
    if not is_state_class(kind):
        raise refusal(path, value, "may hold state of its own")
    found = attributes(value)
    return tuple(found), tuple(found.values())


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, by name, those in slots included."""
    kind: Any = type(value)
    found = dict(getattr(value, "__dict__", {}))
    for name in slots(kind):
        if hasattr(value, name):
            found[name] = getattr(value, name)
    return found


@functools.lru_cache(maxsize=256)
def slots(kind: Any) -> tuple[str, ...]:
    """The names of the slots of a class, as its instances have them."""

    def names() -> Iterator[str]:
        for base in kind.__mro__:
            own = base.__dict__.get("__slots__", ())
            for name in (own,) if isinstance(own, str) else own:
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name

    return tuple(name for name in names() if name not in ("__dict__", "__weakref__"))


@functools.lru_cache(maxsize=256)
def is_state_class(kind: Any) -> bool:
    """Whether attributes are all that an instance holds: files, for one, cannot be pickled."""
    if kind is SimpleNamespace:
        return True
    own = [vars(base) for base in kind.__mro__ if base is not object]
    if issubclass(kind, OWN_STATE) or any("__reduce__" in v or "__reduce_ex__" in v for v in own):
        return False
    try:
        reduced: Any = object.__reduce_ex__(kind.__new__(kind), 2)
    except Exception:
        return False
    return bool(reduced[3:] == (None, None))


def is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def refusal(path: str, value: Any, why: str) -> CaptureError:
    return CaptureError(
        f"{path} is a {type(value).__name__}, which {why}",
        where=path,
        remedy="pass tensors, numbers and strings, in dicts, lists, tuples or plain objects",
    )


@dataclass
class Build:
    """Makes values of their structures, or writes these to ``origins``, the containers before.

    A container that has no origin is made new.
    """

    tensors: Sequence[Tensor]
    origins: Sequence[Any] = ()
    made: list[Any] = field(default_factory=list)

    def value(self, part: Part) -> Any:
        """The value of ``part``."""
        match part:
            case TensorAt(index):
                return self.tensors[index]
            case Plain(_, value):
                return value
            case Seen(visit):
                return self.made[visit]
        if issubclass(part.kind, tuple):
            return self._tuple(part)
        known = self.origins and part.origin is not None
        new: Any = part.kind
        target = self.origins[part.origin] if known else new.__new__(new)  # type: ignore[index]
        self.made.append(target)
        items = [self.value(item) for item in part.items]
        fill(target, part.names, items)
        return target

    def _tuple(self, part: Container) -> Any:
        """A tuple; the one before the call if it holds the same items."""
        visit = len(self.made)
        self.made.append(None)
        items = [self.value(item) for item in part.items]
        made = part.kind(*items) if is_named_tuple(part.kind) else tuple(items)
        if self.origins and part.origin is not None:
            before = self.origins[part.origin]
            made = before if all(map(operator.is_, before, items)) else made
        self.made[visit] = made
        return made


def fill(target: Any, names: tuple[Any, ...], items: list[Any]) -> None:
    """Make ``items`` the contents of ``target``, which keeps its identity."""
    if isinstance(target, list):
        target[:] = items
        return
    now = dict(zip(names, items, strict=True))
    if isinstance(target, dict):
        target.clear()
        target.update(now)
        return
    kind: Any = type(target)
    own = getattr(target, "__dict__", None)
    for name in attributes(target).keys() - now.keys():
        object.__delattr__(target, name)
    for name, value in now.items():
        if own is not None and name not in slots(kind):
            own[name] = value
        else:
            object.__setattr__(target, name, value)
