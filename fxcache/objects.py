"""State objects: plain Python objects with tensors in them, which a model may read and write.

A key/value cache is an example. The structure of a state object is part of the key of a capture.
Its tensors are inputs of the graph. Tensors that the model writes are outputs of the graph.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fxcache.contents import PLAIN, UNCHANGEABLE, contents, fill, has_items, refusal, remade


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
    """A further reference to a container.

    Attributes:
        visit: The number of its visit, which depends on the containers before it.
        origin: The index among the containers before the call; None if the call created it.
    """

    visit: int = field(compare=False)
    origin: int | None


@dataclass(frozen=True)
class Container:
    """An object, list, tuple, dict or function.

    Attributes:
        kind: The type.
        origin: The index among the containers before the call; None if the call created it.
        names: The names of attributes or of a closure's variables, or the keys of a dict; empty for
            a sequence.
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
            visit = self._visits[id(value)]
            return Seen(visit, self._origin(value, visit))
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
        self._open.add(id(value))
        labels = names or range(len(items))
        pairs = zip(items, labels, strict=True)
        parts = tuple(self.part(item, f"{path}.{label}") for item, label in pairs)
        self._open.remove(id(value))
        return Container(type(value), self._origin(value, visit), names, parts)

    def _origin(self, value: Any, visit: int) -> int | None:
        """The index of a container before the call."""
        return visit if self.origins is None else self.origins.get(id(value))


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
            case Seen(visit, _):
                return self.made[visit]
        if issubclass(part.kind, UNCHANGEABLE):
            return self._unchangeable(part)
        known = self.origins and part.origin is not None
        new: Any = part.kind
        target = self.origins[part.origin] if known else new.__new__(new)  # type: ignore[index]
        self.made.append(target)
        items = [self.value(item) for item in part.items]
        fill(target, part.names, items)
        return target

    def _unchangeable(self, part: Container) -> Any:
        """The tuple or function of ``part``. The one before the call is reused if it is the same.

        It is the same if it has the same items, or refers to the same variables.
        """
        visit = len(self.made)
        self.made.append(None)
        items = [self.value(item) for item in part.items]
        made = remade(part.kind, items)
        if self.origins and part.origin is not None:
            before = self.origins[part.origin]
            made = before if has_items(before, items) else made
        self.made[visit] = made
        return made


def tensor_indices(part: Part) -> Iterator[int]:
    """The indices of the tensors in ``part``."""
    if isinstance(part, TensorAt):
        yield part.index
    elif isinstance(part, Container):
        for item in part.items:
            yield from tensor_indices(item)
