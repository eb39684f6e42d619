"""State objects: plain Python objects with tensors in them, which a model may read and write.

A key/value cache is an example. The structure of a state object is part of the key of a capture.
Its tensors are inputs of the graph. Tensors that the model writes are outputs of the graph.
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
# Instances of these types hold more than their attributes.
OWN_STATE: tuple[Any, ...] = (nn.Module, Tensor, torch.Generator, Callable, list, tuple, dict, set)


@dataclass(frozen=True)
class TensorAt:
    """A tensor, by its index: first the tensors of the call, then those that the call creates."""

    index: int


@dataclass(frozen=True)
class Plain:
    """A constant. ``kind`` distinguishes ``True``, ``1`` and ``1.0``, which compare as equal."""

    kind: type
    value: Any


@dataclass(frozen=True)
class Seen:
    """A further reference to the container that was visited as number ``visit``."""

    visit: int


@dataclass(frozen=True)
class Container:
    """An object, list, tuple or dict.

    Attributes:
        kind: The type.
        origin: The index among the containers before the call; None if the call created it.
        names: The names of attributes, or the keys of a dict; empty for a sequence.
        items: The structure of each attribute, value or item.
    """

    kind: type
    origin: int | None
    names: tuple[Any, ...]
    items: tuple["Part", ...]


Part = TensorAt | Plain | Seen | Container


@dataclass
class Walk:
    """One walk over state objects, which lists their containers and tensors.

    Attributes:
        tensors: The known tensors. The walk appends each other tensor that it finds.
        origins: The index, by id, of each container that existed before the call. None for the
            walk before the call, in which each container has its own index.
        containers: The containers in the order of the visit.
        paths: The paths of the tensors that the walk appended.
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
        """The structure of ``value``.

        Raises:
            CaptureError: ``value`` cannot be part of a state object.
        """
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
        """The index of ``tensor``, which is appended if it is new."""
        if id(tensor) not in self._indices:
            self._indices[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
            self.paths.append(path)
        return self._indices[id(tensor)]

    def _container(self, value: Any, path: str) -> Container:
        """The structure of a container that the walk visits for the first time."""
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
    if not is_state_class(kind):
        raise refusal(path, value, "may hold state of its own")
    by_name = attributes(value)
    return tuple(by_name), tuple(by_name.values())


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
    if kind is SimpleNamespace:
        return True
    members = [vars(base) for base in kind.__mro__ if base is not object]
    custom = any("__reduce__" in names or "__reduce_ex__" in names for names in members)
    if issubclass(kind, OWN_STATE) or custom:
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


@dataclass
class Build:
    """Builds values from their structures.

    Attributes:
        tensors: The tensors that ``TensorAt`` refers to.
        origins: The containers before the call. A container with an origin is updated in place;
            any other is created.
        made: The containers so far, in the order of the visit.
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
        """The tuple of ``part``. The tuple before the call is reused if it has the same items."""
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
    """Replace the contents of ``target`` by ``items``, in place."""
    if isinstance(target, list):
        target[:] = items
        return
    new = dict(zip(names, items, strict=True))
    if isinstance(target, dict):
        target.clear()
        target.update(new)
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
