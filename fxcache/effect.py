"""Something that a call of the model changes in its Python objects, which no graph can change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

MAX_NAMED = 3  # effects that a message names


class Place(NamedTuple):
    """An attribute or a weight of a submodule.

    Attributes:
        path: The path of the submodule; empty for the model itself.
        name: The name of the attribute.
    """

    path: str
    name: str

    @classmethod
    def named(cls, name: str) -> "Place":
        """Return the place with this full name, such as ``"blocks.0.kept"``."""
        path, _, attribute = name.rpartition(".")
        return cls(path, attribute)

    def owner(self, module: nn.Module) -> dict[str, Any]:
        """Return the attributes, or the weights, of the submodule; none if it was removed."""
        try:
            submodule = module.get_submodule(self.path)
        except AttributeError:
            return {}
        weights: tuple[dict[str, Any], ...] = (submodule._buffers, submodule._parameters)
        return next((own for own in weights if self.name in own), vars(submodule))

    def __str__(self) -> str:
        return ".".join(filter(None, self))


@dataclass(frozen=True)
class Effect:
    """One change that a call makes in the Python objects of a model.

    Attributes:
        place: The attribute that changes, or that leads to the changed object.
        entry: The attribute or key that changes in that object; empty if it has no name.
        stores: Whether the new value holds a tensor that depends on an input of the call. All other
            values may be the same after every call.
        fills: Whether there was no value before, or None, or whether a flag changes.
        counts: Whether the new value is a number, as that of a counter is.
    """

    place: Place
    entry: str
    stores: bool
    fills: bool = False
    counts: bool = False

    def __str__(self) -> str:
        entry = self.entry if self.entry != self.place.name else ""
        return ".".join(filter(None, (str(self.place), entry)))


def named(found: Sequence[Effect | Place]) -> str:
    """Return the names of some effects or places, for messages."""
    rest = len(found) - MAX_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(map(str, found[:MAX_NAMED])) + more
