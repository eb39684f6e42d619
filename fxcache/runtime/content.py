"""Hashable keys for the content of objects: equal for equal settings of one type."""

from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import version_of
from fxcache.capture.weight_hooks import only_handles_weights

EXACT = (int, str, bytes, bool, type(None))
ROUNDED = (float, complex)
SEQUENCES = (list, tuple, deque)
MAX_NODES = 400  # a larger object is compared by identity
EMPTY_CELL = "empty cell"


def exact_key(value: Any) -> Hashable:
    """Return a key that differs for 1, 1.0 and True, and for 0.0 and -0.0. A NaN equals itself."""
    return type(value), value if type(value) in EXACT else repr(value)


class Plain:
    """A class with the memory layout of all classes without slots and without bases in C."""


LAYOUT = (Plain.__basicsize__, Plain.__itemsize__, Plain.__dictoffset__)


class IdentityKey:
    """A key that equals only keys of the same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class TooLargeError(Exception):
    """The object has more nodes than ``MAX_NODES``."""


class Content:
    """The ``key`` of ``value``, and the containers that reveal its changes.

    Numbers, strings, containers, functions (by code, closure and defaults), bound methods, partials
    and plain objects are compared by value. Tensors are compared by identity and version. Modules,
    types, hooks that only load or gather weights, objects with a layout of their own and very large
    objects are compared by identity.

    Attributes:
        key: A hashable key that is equal for equal contents.
        containers: The mutable containers in ``value``, including the ``__dict__`` of objects.
        volatile: Whether ``value`` can change without a change of a container: it contains a
            closure's variable or a tensor.
    """

    __slots__ = ("_seen", "containers", "key", "volatile")

    def __init__(self, value: object):
        self.containers: list[Any] = []
        self.volatile = False
        self._seen: dict[int, int] = {}
        try:
            self.key: Hashable = self._key(value)
        except TooLargeError:
            self.key, self.containers, self.volatile = IdentityKey(value), [], False

    def _key(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in EXACT or kind in ROUNDED:
            return exact_key(value)
        if isinstance(value, torch.dtype | torch.device):
            return value
        if isinstance(value, Enum | type | nn.Module) or only_handles_weights(kind):
            return IdentityKey(value)
        if isinstance(value, Tensor):
            self.volatile = True
            return IdentityKey(value), version_of(value)
        if kind is MethodType:  # each access makes a new one
            return kind, self._key(value.__func__), self._key(value.__self__)
        if kind is CellType:
            return self._key_of_cell(value)
        if id(value) in self._seen:  # references may be cyclic
            return "seen", self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        if len(self._seen) > MAX_NODES:
            raise TooLargeError
        return self._key_of_object(value, kind)

    def _key_of_object(self, value: Any, kind: type) -> Hashable:
        if kind in SEQUENCES:
            self._visit(value, changes=kind is not tuple)
            return kind, self._keys(value)
        if kind is dict:
            self._visit(value)
            return kind, self._keys(value), self._keys(value.values())
        if kind in (set, frozenset):
            self._visit(value, changes=kind is set)
            return kind, frozenset(map(self._key, value))
        if kind is FunctionType:
            return self._key_of_function(value)
        if kind is partial:
            parts = (value.func, value.args, value.keywords)
            return kind, self._keys(parts), self._key_of_attributes(value)
        if (kind.__basicsize__, kind.__itemsize__, kind.__dictoffset__) == LAYOUT:
            return IdentityKey(kind), self._key_of_attributes(value)
        return IdentityKey(value)

    def _key_of_function(self, function: FunctionType) -> Hashable:
        parts = (function.__closure__, function.__defaults__, function.__kwdefaults__)
        return (
            function.__code__,
            IdentityKey(function.__globals__),
            self._keys(parts),
            self._key_of_attributes(function),
        )

    def _key_of_attributes(self, value: object) -> Hashable:
        attributes = vars(value)
        self._visit(attributes)
        return self._keys(attributes), self._keys(attributes.values())

    def _key_of_cell(self, cell: CellType) -> Hashable:
        self.volatile = True
        try:
            return self._key(cell.cell_contents)
        except ValueError:
            return EMPTY_CELL

    def _keys(self, values: Iterable[object]) -> tuple[Hashable, ...]:
        return tuple(map(self._key, values))

    def _visit(self, container: object, changes: bool = True) -> None:
        if changes:
            self.containers.append(container)
