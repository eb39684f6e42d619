"""Snapshots of single containers, which can restore them.

All reads and writes use the methods of the base class, because those of a subclass may run
arbitrary code. Only entries that changed are written.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from operator import is_
from types import ModuleType
from typing import Any, NamedTuple, Protocol
from weakref import ref

MISSING = object()
# Ids of the types whose values refer to no other object. Most values have one of these types. The
# set holds ids because a metaclass may make a type unhashable.
PLAIN = frozenset(map(id, (str, int, float, bool, bytes, complex, type(None))))
ORDINARY = (dict, OrderedDict)  # their own methods are those of the base class


class Change(NamedTuple):
    """A change of one container.

    Attributes:
        name: The key, index or attribute; None for an item of a set and the content of a cell.
        before: The value at the snapshot; ``MISSING`` if there was none.
        after: The value now; ``MISSING`` if there is none.
    """

    name: Any
    before: Any
    after: Any


class State(Protocol):
    """A snapshot of one container."""

    def changes(self) -> Iterator[Change]:
        """Yield the changes since the snapshot."""

    def put_back(self) -> None:
        """Restore the container."""


class DictState:
    """The entries of a dict, and their order."""

    def __init__(self, container: dict[Any, Any]) -> None:
        self._now = container
        self._base: Any = OrderedDict if is_a(container, OrderedDict) else dict
        if type(container) in ORDINARY:  # faster, with the same result
            self.entries = container.copy()
        else:
            self.entries = {key: dict.get(container, key) for key in self._keys()}

    def _keys(self) -> list[Any]:
        return list(self._base.__iter__(self._now))

    def changes(self) -> Iterator[Change]:
        if not self._is_unchanged():
            now = {key: dict.get(self._now, key) for key in self._keys()}
            yield from differences(self.entries, now)

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
        self._dicts: list[tuple[Any, dict[Any, Any]]] = []

    def keep(self, container: dict[Any, Any], place: Any) -> bool:
        """Return whether ``container`` is an empty plain dict, and take a snapshot if it is."""
        if type(container) not in ORDINARY or container:
            return False
        self._dicts.append((place, container))
        return True

    def changes(self) -> Iterator[tuple[Any, Change]]:
        """Yield each change with the place of its dict."""
        for place, now in self._dicts:
            if now:
                yield from ((place, change) for change in differences({}, now))

    def put_back(self) -> None:
        for _, now in self._dicts:
            if now:
                now.clear()


class SequenceState:
    """The items of a list or deque."""

    def __init__(self, container: Any) -> None:
        self._now = container
        self._base: Any = deque if is_a(container, deque) else list
        self.items = list(self._base.__iter__(container))

    def changes(self) -> Iterator[Change]:
        now = self._base.__iter__(self._now)
        for index, (old, new) in enumerate(zip_longest(self.items, now, fillvalue=MISSING)):
            if old is not new:
                yield Change(index, old, new)

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

    def changes(self) -> Iterator[Change]:
        yield from (Change(None, MISSING, m) for m in set.difference(self._now, self.members))
        yield from (Change(None, m, MISSING) for m in set.difference(self.members, self._now))

    def put_back(self) -> None:
        members = {member for member in self.members if not is_dead(member)}
        if set.__eq__(self._now, members):
            return  # both methods change the order, and so the snapshot of the model
        set.intersection_update(self._now, members)
        set.update(self._now, members)


def differences(then: Mapping[Any, Any], now: Mapping[Any, Any]) -> Iterator[Change]:
    """Yield the entries that differ between two versions of a container."""
    for name, value in now.items():
        before = then.get(name, MISSING)
        if before is not value:
            yield Change(name, before, value)
    yield from (Change(name, then[name], MISSING) for name in then if name not in now)


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
