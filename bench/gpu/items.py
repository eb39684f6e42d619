"""One item is one entry of a part's JSON file. Each part is a module with ``items(setup)``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class CheckError(AssertionError):
    """What was measured breaks a promise."""


@dataclass(frozen=True)
class Item:
    """``measure`` returns what goes into the file, or raises."""

    name: str
    measure: Callable[[], dict[str, Any]]


def require(holds: bool, promise: str, found: Mapping[str, Any]) -> None:
    """Raise CheckError, with everything that was found, unless the promise holds."""
    if not holds:
        raise CheckError(f"not so: {promise}; found {dict(found)}")
