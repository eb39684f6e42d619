"""Snapshots of single containers, which can restore them.

All reads and writes use the methods of the base class, because those of a subclass may run
arbitrary code. Only entries that changed are written.
"""

from collections import OrderedDict, deque
from operator import is_
from types import ModuleType
from typing import Any, Protocol
from weakref import ref

MISSING = object()
# Ids of the types whose values refer to no other object. Most values have one of these types. The
# set holds ids because a metaclass may make a type unhashable.
PLAIN = frozenset(map(id, (str, int, float, bool, bytes, complex, type(None))))
ORDINARY = (dict, OrderedDict)  # their own methods are those of the base class


class State(Protocol):
    """A snapshot of one container."""

    def added(self) -> list[Any]:
        """Return the values that were added since the snapshot."""

    def put_back(self) -> None:
        """Restore the container."""


class DictState:
    """The entries of a dict, and their order."""

    def __init__(self, container: dict[Any, Any]) -> None:
        self._now = container
        self._base: Any = OrderedDict if is_a(container, OrderedDict) else dict
        if type(container) is dict:  # faster, with the same result
            self.entries = container.copy()
        else:
            self.entries = {key: dict.get(container, key) for key in self._keys()}

    def _keys(self) -> list[Any]:
        return list(self._base.__iter__(self._now))

    def added(self) -> list[Any]:
        if self._is_unchanged():
            return []
        now = ((key, dict.get(self._now, key)) for key in self._keys())
        return [value for key, value in now if self.entries.get(key, MISSING) is not value]

    def _is_unchanged(self) -> bool:
        """Return a fast check for a plain dict with the same entries."""
        now, entries = self._now, self.entries
        return (
            type(now) in ORDINARY
            and len(now) == len(entries)
            and all(map(is_, list(now), entries))
            and all(map(is_, list(now.values()), entries.values()))
        )

    def put_back(self) -> None:
        if self._is_unchanged():
            return
        now, entries = self._now, live(self.entries)
        for key in self._keys():
            if key not in entries:
                self._base.__delitem__(now, key)
        for key, value in entries.items():
            if dict.get(now, key, MISSING) is not value:
                self._base.__setitem__(now, key, value)
        if self._keys() != list(entries):
            self._base.clear(now)
            for key, value in entries.items():
                self._base.__setitem__(now, key, value)


class EmptyDicts:
    """Snapshots of all empty dicts. Most dicts are empty, such as those of functions and hooks."""

    def __init__(self) -> None:
        self._dicts: list[dict[Any, Any]] = []

    def keep(self, container: dict[Any, Any]) -> bool:
        """Return whether ``container`` is an empty plain dict, and take a snapshot if it is."""
        if type(container) not in ORDINARY or container:
            return False
        self._dicts.append(container)
        return True

    def added(self) -> list[Any]:
        return [value for now in self._dicts if now for value in now.values()]

    def put_back(self) -> None:
        for now in self._dicts:
            if now:
                now.clear()


class SequenceState:
    """The items of a list or deque."""

    def __init__(self, container: Any) -> None:
        self._now = container
        self._base: Any = deque if is_a(container, deque) else list
        self.items = list(self._base.__iter__(container))

    def added(self) -> list[Any]:
        known = set(map(id, self.items))
        return [item for item in self._base.__iter__(self._now) if id(item) not in known]

    def put_back(self) -> None:
        now = list(self._base.__iter__(self._now))
        if list(map(id, now)) != list(map(id, self.items)):
            self._base.clear(self._now)
            self._base.extend(self._now, self.items)


class SetState:
    """The members of a set."""

    def __init__(self, container: set[Any]) -> None:
        self._now = container
        self.members = set(set.__iter__(container))

    def added(self) -> list[Any]:
        return list(set.difference(self._now, self.members))

    def put_back(self) -> None:
        members = {member for member in self.members if not is_dead(member)}
        if set.__eq__(self._now, members):
            return  # both methods change the order, and so the snapshot of the model
        set.intersection_update(self._now, members)
        set.update(self._now, members)


class VariablesState:
    """The variables of a module file, or the attributes of a class."""

    def __init__(self, place: Any) -> None:
        self._place = place
        self.variables = variables_of(place)

    def added(self) -> list[Any]:
        return [
            value
            for name, value in variables_of(self._place).items()
            if self.variables.get(name, MISSING) is not value
        ]

    def put_back(self) -> None:
        for name, value in variables_of(self._place).items():
            if name not in self.variables and not is_definition(value):
                self._base().__delattr__(self._place, name)
        now = variables_of(self._place)
        for name, value in self.variables.items():
            if now.get(name, MISSING) is not value:
                self._base().__setattr__(self._place, name, value)

    def _base(self) -> Any:
        return type if is_a(self._place, type) else object


class SlotsState:
    """The attributes of an object whose class has ``__slots__``."""

    def __init__(self, owner: Any, names: list[str]) -> None:
        self._owner, self._names = owner, names
        self.values = self._read()

    def _read(self) -> dict[str, Any]:
        values = {}
        for name in self._names:
            try:
                values[name] = object.__getattribute__(self._owner, name)
            except AttributeError:
                continue  # not set
        return values

    def added(self) -> list[Any]:
        now = self._read().items()
        return [value for name, value in now if self.values.get(name, MISSING) is not value]

    def put_back(self) -> None:
        now = self._read()
        for name in now.keys() - self.values.keys():
            object.__delattr__(self._owner, name)
        for name, value in self.values.items():
            if now.get(name, MISSING) is not value:
                object.__setattr__(self._owner, name, value)


def variables_of(place: Any) -> dict[str, Any]:
    """Return the variables of a module file or class, without names such as ``__doc__``."""
    names = list(vars(place).items())
    return {k: v for k, v in names if not (k.startswith("__") and k.endswith("__"))}


def is_definition(value: Any) -> bool:
    """Return whether ``value`` is a module, class, function, method or property: code, not data."""
    return is_definition_type(type(value))


def is_definition_type(kind: type) -> bool:
    """Return whether values of this type are code."""
    return (
        issubclass(kind, (ModuleType, type, property))
        or hasattr(kind, "__code__")
        or hasattr(kind, "__func__")
    )


def is_a(value: Any, *kinds: type) -> bool:
    """``isinstance`` that runs no code of the value, such as the loading code of a lazy proxy."""
    return issubclass(type(value), kinds)


def live(entries: dict[Any, Any]) -> dict[Any, Any]:
    """``entries`` without weak references to dead objects."""
    return {k: v for k, v in entries.items() if not is_dead(k) and not is_dead(v)}


def is_dead(value: Any) -> bool:
    """Return whether ``value`` is a weak reference to a dead object."""
    return is_a(value, ref) and value() is None
