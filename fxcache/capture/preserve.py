"""Restores the module and its source files after a trace, so that no fake tensor remains."""

import functools
import threading
from collections import deque
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from fxcache.capture.containers import (
    PLAIN,
    DictState,
    EmptyDicts,
    SequenceState,
    SetState,
    SlotsState,
    State,
    VariablesState,
    is_a,
    is_definition_type,
)
from fxcache.capture.definitions import FINDERS, code_of
from fxcache.capture.leftovers import LruCacheState, holds_leftovers

DEPTH = 4  # how many levels of nested objects are restored
OPAQUE = frozenset({"torch", "logging", "fxcache"})  # objects of these packages are left alone


class Preserved:
    """Restores the state of a module and of its source files at the end of each block.

    A rotary embedding that stores its frequencies at the first call would otherwise store fake
    tensors. torch.export restores some attributes of modules, and none of plain objects.

    The attributes of the module, and the plain objects in them, are always restored. Variables of
    files and attributes of classes are shared with the rest of the process, which may change them
    during the trace. They are restored only if they hold a value of the trace.
    """

    def __init__(self, module: nn.Module) -> None:
        """Take a snapshot of the state, which several blocks may restore."""
        known: set[int] = set()
        kinds: dict[int, Kind] = {}
        self._module_contents = Contents(known, kinds)
        for submodule in module.modules():
            self._module_contents.keep(vars(submodule), DEPTH)
        self._shared = []
        for file, classes in code_of(module).items():
            contents = Contents(known, kinds)
            for place in (file, *classes):
                contents.keep_variables(place)
            self._shared.append(contents)

    def __enter__(self) -> None:
        """Begin a block."""

    def __exit__(self, *_: object) -> None:
        """Restore the state."""
        self._module_contents.put_back()
        for contents in self._shared:
            if contents.has_leftovers():
                contents.put_back()


class Kind:
    """How to take snapshots of the objects of one type. It is computed once for each type."""

    def __init__(self, kind: type) -> None:
        self.kind = kind  # keeps the type alive, so that no other type gets its id
        self.skipped = issubclass(kind, (nn.Module, Tensor))
        self.is_definition = is_definition_type(kind)
        self.is_dict = issubclass(kind, dict)
        self.is_sequence = issubclass(kind, (list, deque))
        self.is_cache = issubclass(kind, functools._lru_cache_wrapper)
        self.is_set = issubclass(kind, set)
        self.is_tuple = issubclass(kind, tuple)
        self.is_opaque = str(kind.__module__).partition(".")[0] in OPAQUE
        self.slots = slots_of(kind)


class Contents:
    """Snapshots of some containers and of the containers and objects nested in them."""

    def __init__(self, known: set[int], kinds: dict[int, Kind]) -> None:
        """Start without snapshots.

        Args:
            known: The ids of all objects that have a snapshot, here or in other instances.
            kinds: The ``Kind`` of each type met so far, by the id of the type.
        """
        self._empty = EmptyDicts()
        self._states: list[State] = [self._empty]
        self._known = known
        self._kinds = kinds

    def keep_variables(self, place: Any) -> None:
        """Take a snapshot of the variables of a file, or of the attributes of a class."""
        state = VariablesState(place)
        self._states.append(state)
        self._keep_all(state.variables.values(), DEPTH)

    def keep(self, value: Any, depth: int) -> None:
        """Take a snapshot of ``value`` if it is a container or an object with attributes."""
        kind = self._kinds.get(id(type(value)))
        if kind is None:
            kind = self._kinds[id(type(value))] = Kind(type(value))
        if depth == 0 or id(value) in self._known or kind.skipped:
            return
        self._known.add(id(value))
        if kind.is_definition:
            nested = state_of_code(value)
        else:
            nested = self._keep_items(value, kind)
            self._keep_attributes(value, kind, depth)
        self._keep_all(nested, depth - 1)

    def _keep_all(self, values: Iterable[Any], depth: int) -> None:
        if depth == 0:
            return
        known, keep_empty = self._known, self._empty.keep
        for value in values:
            kind = type(value)
            if id(kind) in PLAIN or id(value) in known:
                continue
            if kind is dict and keep_empty(value):  # as most are
                known.add(id(value))
            else:
                self.keep(value, depth)

    def _keep_items(self, value: Any, kind: Kind) -> list[Any]:
        """Take a snapshot of the items of a container, and return them."""
        if kind.is_dict:
            if self._empty.keep(value):
                return []
            entries = DictState(value)
            self._states.append(entries)
            return list(entries.entries.values())
        if kind.is_sequence:
            sequence = SequenceState(value)
            self._states.append(sequence)
            return sequence.items
        if kind.is_cache and object.__getattribute__(value, "__module__") not in FINDERS:
            self._states.append(LruCacheState(value))
        if kind.is_set:
            self._states.append(SetState(value))
        return list(tuple.__iter__(value)) if kind.is_tuple else []

    def _keep_attributes(self, value: Any, kind: Kind, depth: int) -> None:
        """Take a snapshot of the attributes of an object, at the same depth as the object."""
        if kind.is_opaque:
            return
        if isinstance(attributes := attributes_of(value), dict):
            self.keep(attributes, depth)
        if kind.slots:
            slots = SlotsState(value, kind.slots)
            self._states.append(slots)
            self._keep_all(slots.values.values(), depth - 1)

    def has_leftovers(self) -> bool:
        """Return whether a value of the trace was added to any container."""
        return any(holds_leftovers(value) for state in self._states for value in state.added())

    def put_back(self) -> None:
        """Restore all containers."""
        for state in self._states:
            state.put_back()


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
    if not is_a(value, FunctionType):
        return [value.__func__] if hasattr(type(value), "__func__") else []
    if value.__module__ is None or value.__module__.partition(".")[0] in OPAQUE:
        return []
    cells = []
    for cell in value.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:
            continue  # not set yet
    return [*cells, vars(value), *(value.__defaults__ or ())]
