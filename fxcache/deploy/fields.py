"""Reads fields of JSON objects strictly: wrong types and unknown names are errors."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from fxcache.errors import ArtifactError

T = TypeVar("T")
DAMAGED = "export the model again, or copy the whole folder again"


def damaged(what: str, where: str) -> ArtifactError:
    """Return the error for content that ``fxcache.export`` does not write."""
    return ArtifactError(what, where=where, remedy=DAMAGED)


class Fields:
    """The fields of one JSON object.

    Args:
        data: The object as ``json.loads`` returned it.
        where: Its place in the artifact, for errors.
        names: The names that it must have, and no others.

    Raises:
        ArtifactError: ``data`` is no object, or has other names.
    """

    def __init__(self, data: object, where: str, names: Collection[str]):
        if not isinstance(data, dict):
            raise damaged(f"a JSON object is expected, not {type(data).__name__}", where)
        if data.keys() != set(names):
            differing = sorted(map(str, data.keys() ^ set(names)))
            raise damaged(f"missing or unknown fields: {', '.join(differing[:3])}", where)
        self._data: Mapping[str, Any] = data
        self.where = where

    def of(self, name: str, kind: type[T]) -> T:
        """Return the field ``name``; ArtifactError if it is no ``kind``. A bool is no int."""
        value = self._data[name]
        if type(value) is not kind:
            raise self.wrong(name, f"{kind.__name__} is expected, not {type(value).__name__}")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """Return the field ``name``, which may be null."""
        return None if self._data[name] is None else self.of(name, kind)

    def size(self, name: str, most: int) -> int:
        """Return the field ``name``, a whole number from 0 to ``most``."""
        value = self.of(name, int)
        if not 0 <= value <= most:
            raise self.wrong(name, f"{value} is not a whole number from 0 to {most}")
        return value

    def one_of(self, name: str, choices: Collection[str]) -> str:
        """Return the field ``name``, which is one of ``choices``."""
        value = self.of(name, str)
        if value not in choices:
            raise self.wrong(name, f"{value[:40]!r} is none of: {', '.join(sorted(choices))}")
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        """Return the field ``name``, a list of ``kind``."""
        return list_of(self.of(name, list), kind, f"{self.where}.{name}")

    def pairs(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the field ``name``, an object."""
        yield from self.of(name, dict).items()

    def raw(self, name: str) -> Any:
        """Return the field ``name`` without a check."""
        return self._data[name]

    def wrong(self, name: str, what: str) -> ArtifactError:
        """Return the error for the field ``name``."""
        return damaged(what, f"{self.where}.{name}")


def list_of(values: object, kind: type[T], where: str) -> list[T]:
    """Return ``values`` if it is a list of ``kind``; raise ArtifactError otherwise."""
    if type(values) is not list or any(type(value) is not kind for value in values):
        raise damaged(f"a list of {kind.__name__} is expected", where)
    return values


def built(make: Callable[[], T], where: str) -> T:
    """Return ``make()``; raise ArtifactError if the content of the artifact makes it fail."""
    try:
        return make()
    except ArtifactError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise damaged(f"{type(error).__name__}: {(reason or [''])[0][:200]}", where) from error
