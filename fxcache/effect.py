"""Something that a call of the model changes in its Python objects, which no graph can change."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_NAMED = 3  # effects that a message names


@dataclass(frozen=True)
class Effect:
    """One change that a call makes in the Python objects of a model.

    Attributes:
        path: The path of a submodule; empty for the model itself.
        name: The attribute of the submodule that changes, or that leads to the changed object.
        entry: The attribute or key that changes in that object; empty if it has no name.
        stores: Whether the new value holds a tensor that depends on an input of the call. All other
            values may be the same after every call.
    """

    path: str
    name: str
    entry: str
    stores: bool

    def __str__(self) -> str:
        steps = [self.path, self.name, self.entry if self.entry != self.name else ""]
        return ".".join(filter(None, steps))


def named(effects: Sequence[Effect]) -> str:
    """Return the names of some effects, for messages."""
    rest = len(effects) - MAX_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(map(str, effects[:MAX_NAMED])) + more
