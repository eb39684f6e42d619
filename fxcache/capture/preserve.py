"""Restores the module and its source files after a trace, so that no fake tensor remains."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar

from torch import nn

from fxcache.capture.containers import (
    MISSING,
    PLAIN,
    Change,
    DictState,
    EmptyDicts,
    SequenceState,
    SetState,
    State,
)
from fxcache.capture.definitions import FINDERS, code_of
from fxcache.capture.kinds import OF_DICTS, Kind, attributes_of, is_users_function, state_of_code
from fxcache.capture.leftovers import LruCacheState, holds_leftovers
from fxcache.capture.variables import (
    CellState,
    ContextVarState,
    GlobalsState,
    SlotsState,
    VariablesState,
)
from fxcache.effect import Place

S = TypeVar("S", bound=State)

DEPTH = 6  # how many levels of nested objects are restored


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
        self._attributes = [(path, DictState(vars(m))) for path, m in module.named_modules()]
        known.update(id(vars(m)) for m in module.modules())
        self._module_contents = Contents(known, kinds, with_globals=True)
        self._module_contents.keep(
            (Place(path, name), value)
            for path, attributes in self._attributes
            for name, value in attributes.entries.items()
        )
        self._shared = []
        for file, classes in code_of(module).items():
            contents = Contents(known, kinds)
            for variables in (file, *classes):
                contents.keep_variables(variables)
            self._shared.append(contents)

    def __enter__(self) -> "Preserved":
        """Begin a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the state."""
        for _, attributes in self._attributes:
            attributes.put_back()
        self._module_contents.put_back()
        for contents in self._shared:
            if contents.has_leftovers():
                contents.put_back()

    def changes(self) -> Iterator[tuple[Place, Change]]:
        """Yield what changed in the module since the snapshot.

        The place of a change is an attribute of a submodule: the attribute itself, or the object
        that leads to the changed one. Results of ``functools.lru_cache`` do not count.
        """
        for path, attributes in self._attributes:
            yield from ((Place(path, str(c.name)), c) for c in attributes.changes())
        yield from self._module_contents.changes()


class Contents:
    """Snapshots of some containers and of the containers and objects nested in them.

    They are found level by level, so that each object is found on the shortest way to it.
    """

    def __init__(self, known: set[int], kinds: dict[int, Kind], with_globals: bool = False) -> None:
        """Start without snapshots.

        Args:
            known: The ids of all objects that have a snapshot, here or in other instances.
            kinds: The ``Kind`` of each type met so far, by the id of the type.
            with_globals: Whether functions lead to the global variables that they name.
        """
        self._empty = EmptyDicts()
        self._states: list[tuple[Any, State]] = []
        self._caches: list[LruCacheState] = []
        self._known = known
        self._kinds = kinds
        self._with_globals = with_globals

    def keep_variables(self, holder: Any) -> None:
        """Take a snapshot of the variables of a file, or of the attributes of a class."""
        state = self._add(holder, VariablesState(holder))
        self.keep((holder, value) for value in state.variables.values())

    def keep(self, values: Iterable[tuple[Any, Any]]) -> None:
        """Take snapshots of values, each after its place, and of what is nested in them."""
        for _ in range(DEPTH):
            # Most values are plain: to skip them here makes the whole walk several times faster.
            values = [
                pair
                for place, value in values
                if id(type(value)) not in PLAIN
                for pair in self._nested(place, value)
            ]
            if not values:
                return

    def _nested(self, place: Any, value: Any) -> Iterable[tuple[Any, Any]]:
        """Take a snapshot of ``value`` itself. Return what is nested in it, after its place."""
        if id(value) in self._known:
            return ()
        if type(value) is dict and self._empty.keep(value, place):  # as most are
            self._known.add(id(value))
            return ()
        kind = self._kinds.get(id(type(value)))
        if kind is None:
            kind = self._kinds[id(type(value))] = Kind(type(value))
        if kind.skipped:
            return ()
        self._known.add(id(value))
        if kind.is_cell:
            cell = self._add(place, CellState(value))
            nested = [cell.content]
        elif kind.is_context_variable:
            variable = self._add(place, ContextVarState(value))
            nested = [variable.value]
        elif kind.is_definition:
            nested = self._of_definition(place, value)
        else:
            nested = [*self._items(place, value, kind), *self._own(place, value, kind)]
        return [(place, item) for item in nested]

    def _add(self, place: Any, state: S) -> S:
        self._states.append((place, state))
        return state

    def _of_definition(self, place: Any, value: Any) -> list[Any]:
        nested = state_of_code(value)
        if self._with_globals and is_users_function(value):
            named = self._add(place, GlobalsState(value))
            nested = [*nested, *named.values.values()]
        return nested

    def _items(self, place: Any, value: Any, kind: Kind) -> Iterable[Any]:
        """Take a snapshot of the items of a container, and return them."""
        if kind.is_dict:
            if self._empty.keep(value, place):
                return ()
            return self._add(place, DictState(value)).entries.values()
        if kind.is_sequence:
            return self._add(place, SequenceState(value)).items
        if kind.is_cache and object.__getattribute__(value, "__module__") not in FINDERS:
            self._caches.append(LruCacheState(value))
        if kind.is_set:
            self._add(place, SetState(value))
        if kind.is_partial:
            return (value.func, value.args, value.keywords)
        return tuple.__iter__(value) if kind.is_tuple else ()

    def _own(self, place: Any, value: Any, kind: Kind) -> Iterable[Any]:
        """Take a snapshot of the attributes of an object, and return them."""
        if kind.is_opaque:
            return ()
        found: list[Any] = []
        attributes = attributes_of(value)
        if isinstance(attributes, dict) and id(attributes) not in self._known:
            self._known.add(id(attributes))
            found += self._items(place, attributes, OF_DICTS)
        if kind.slots:
            found += self._add(place, SlotsState(value, kind.slots)).values.values()
        return found

    def changes(self) -> Iterator[tuple[Any, Change]]:
        """Yield each change of a container, after its place, without those of caches."""
        yield from self._empty.changes()
        for place, state in self._states:
            yield from ((place, change) for change in state.changes())

    def has_leftovers(self) -> bool:
        """Return whether a value of the trace was added to any container."""
        cached = (value for cache in self._caches for value in cache.results())
        added = (change.after for _, change in self.changes() if change.after is not MISSING)
        return any(map(holds_leftovers, chain(added, cached)))

    def put_back(self) -> None:
        """Restore all containers."""
        self._empty.put_back()
        for _, state in self._states:
            state.put_back()
        for cache in self._caches:
            cache.clear_leftovers()
