"""What tracing must not leave behind: values of the trace that are kept for the next call."""

import functools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from fxcache.capture.containers import (
    PLAIN,
    DictState,
    SequenceState,
    SetState,
    SlotsState,
    State,
    VariablesState,
    is_a,
    is_definition_type,
)
from fxcache.capture.definitions import code_of
from fxcache.capture.leftovers import LruCacheState, holds_leftovers

DEPTH = 4  # how far objects within objects are followed
OPAQUE = frozenset({"torch", "logging", "fxcache"})  # packages whose objects are not followed


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Puts back, afterwards, what the block sets on ``module`` and on the code it is made of.

    A rotary embedding that keeps its frequencies after the first call would keep fake tensors.
    torch.export itself puts back some attributes of modules, and none of plain objects.

    The module's own attributes, and the plain objects in them, become what they were. A file and
    its classes are shared with all else in the process, which may change them meanwhile: they
    become what they were only if a value of the trace is left in them.
    """
    known: set[int] = set()
    kinds: dict[int, Kind] = {}
    own = Contents(known, kinds)
    for submodule in module.modules():
        own.keep(vars(submodule), DEPTH)
    shared = []
    for file, classes in code_of(module).items():
        contents = Contents(known, kinds)
        for place in (file, *classes):
            contents.keep_variables(place)
        shared.append(contents)
    try:
        yield
    finally:
        own.put_back()
        for contents in shared:
            if contents.has_leftovers():
                contents.put_back()


class Kind:
    """How objects of one type are kept. Most objects are of few types."""

    def __init__(self, kind: type) -> None:
        self.kind = kind  # alive, so that its id stays its own
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
    """What some containers, and the containers and objects within them, held."""

    def __init__(self, known: set[int], kinds: dict[int, Kind]) -> None:
        """``known``: ids of what is kept, here or elsewhere; ``kinds``: by id of the type."""
        self._states: list[State] = []
        self._known = known
        self._kinds = kinds

    def keep_variables(self, place: Any) -> None:
        """Keep what the variables of a file, or the attributes of a class, hold."""
        state = VariablesState(place)
        self._states.append(state)
        self._keep_all(state.variables.values(), DEPTH)

    def keep(self, value: Any, depth: int) -> None:
        """Keep what ``value`` holds, if it is a container or an object with attributes."""
        kind = self._kinds.get(id(type(value)))
        if kind is None:
            kind = self._kinds[id(type(value))] = Kind(type(value))
        if depth == 0 or id(value) in self._known or kind.skipped:
            return
        self._known.add(id(value))
        if kind.is_definition:
            held = held_by_code(value)
        else:
            held = self._keep_items(value, kind)
            self._keep_attributes(value, kind, depth)
        self._keep_all(held, depth - 1)

    def _keep_all(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            if id(type(value)) not in PLAIN:
                self.keep(value, depth)

    def _keep_items(self, value: Any, kind: Kind) -> list[Any]:
        """Keep the items of a container. Returns them."""
        if kind.is_dict:
            entries = DictState(value)
            self._states.append(entries)
            return list(entries.entries.values())
        if kind.is_sequence:
            sequence = SequenceState(value)
            self._states.append(sequence)
            return sequence.items
        if kind.is_cache:
            self._states.append(LruCacheState(value))
        if kind.is_set:
            self._states.append(SetState(value))
        return list(tuple.__iter__(value)) if kind.is_tuple else []

    def _keep_attributes(self, value: Any, kind: Kind, depth: int) -> None:
        """Keep the attributes of an object: they are as near as the object itself."""
        if kind.is_opaque:
            return
        if isinstance(attributes := attributes_of(value), dict):
            self.keep(attributes, depth)
        if kind.slots:
            slots = SlotsState(value, kind.slots)
            self._states.append(slots)
            self._keep_all(slots.values.values(), depth - 1)

    def has_leftovers(self) -> bool:
        """Whether a value of the trace has been added anywhere."""
        return any(holds_leftovers(value) for state in self._states for value in state.added())

    def put_back(self) -> None:
        """Make everything as it was."""
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
    """The attributes in the ``__slots__`` of a class and its bases."""
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def held_by_code(value: Any) -> list[Any]:
    """What a function keeps between calls: its closure, its attributes and its defaults."""
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
