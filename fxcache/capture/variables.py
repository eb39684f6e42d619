"""Snapshots of variables: of files, classes, objects with slots, functions and contexts."""

from collections.abc import Iterator
from contextvars import ContextVar
from types import CellType, FunctionType
from typing import Any

from fxcache.capture.containers import MISSING, Change, differences, is_a, is_definition


class VariablesState:
    """The variables of a module file, or the attributes of a class."""

    def __init__(self, place: Any) -> None:
        self._place = place
        self.variables = variables_of(place)

    def changes(self) -> Iterator[Change]:
        yield from differences(self.variables, variables_of(self._place))

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


class CellState:
    """The content of a cell: a variable of a function that its inner functions may set."""

    def __init__(self, cell: CellType) -> None:
        self._cell = cell
        self.content = self._read()

    def _read(self) -> Any:
        try:
            return self._cell.cell_contents
        except ValueError:
            return MISSING  # not set yet

    def changes(self) -> Iterator[Change]:
        if (now := self._read()) is not self.content:
            yield Change(None, self.content, now)

    def put_back(self) -> None:
        now = self._read()
        if now is not self.content and self.content is not MISSING:
            self._cell.cell_contents = self.content
        elif now is not self.content:
            del self._cell.cell_contents


class ContextVarState:
    """The value of a context variable.

    It needs no restoring: a trace runs in a context of its own (``own_context``).
    """

    def __init__(self, variable: ContextVar[Any]) -> None:
        self._variable = variable
        self.value = variable.get(MISSING)

    def changes(self) -> Iterator[Change]:
        if (now := self._variable.get(MISSING)) is not self.value:
            yield Change(None, self.value, now)

    def put_back(self) -> None:
        """Do nothing."""


class GlobalsState:
    """The global variables that a function names."""

    def __init__(self, function: FunctionType) -> None:
        self._all, self._names = function.__globals__, function.__code__.co_names
        self.values = self._read()

    def _read(self) -> dict[str, Any]:
        return {name: self._all[name] for name in self._names if name in self._all}

    def changes(self) -> Iterator[Change]:
        yield from differences(self.values, self._read())

    def put_back(self) -> None:
        for name, before, _ in list(self.changes()):
            if before is MISSING:
                del self._all[name]
            else:
                self._all[name] = before


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

    def changes(self) -> Iterator[Change]:
        yield from differences(self.values, self._read())

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
