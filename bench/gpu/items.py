"""An item is one entry in a part's JSON file. Each part is a module with ``items(setup)``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class CheckError(AssertionError):
    """The measurement breaks a promise."""


@dataclass(frozen=True)
class Item:
    """An item. ``measure`` returns the data for the file, or raises."""

    name: str
    measure: Callable[[], dict[str, Any]]


def require(holds: bool, promise: str, found: Mapping[str, Any]) -> None:
    """Raise CheckError with all measured values unless the promise holds."""
    if not holds:
        raise CheckError(f"broken promise: {promise}; measured: {dict(found)}")
