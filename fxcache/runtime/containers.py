"""Compares the content of many containers with their earlier content, at C speed."""

from collections.abc import Iterable
from itertools import chain, repeat
from operator import is_
from typing import Any

END = (object(),)  # marks the end of each container's content


class Containers:
    """The identities of the objects in dictionaries, lists, tuples, sets and deques."""

    def __init__(self, containers: Iterable[Any]):
        found = list(containers)
        self._empty = [c for c in found if not c]
        self._mappings = [c for c in found if c and isinstance(c, dict)]
        self._sequences = [c for c in found if c and not isinstance(c, dict)]
        self._then = list(self._now())

    def hold(self) -> bool:
        """Return whether each container still holds the same objects in the same order."""
        if any(self._empty):
            return False
        try:
            return not self._then or all(map(is_, self._now(), self._then))
        except RuntimeError:  # another thread changes a container
            return False

    def _now(self) -> Iterable[object]:
        """Return the current content of all containers, each followed by END.

        Dictionaries are read one by one, because those of a model exceed the CPU's cache.
        """
        mappings = zip(self._mappings, map(dict.values, self._mappings), repeat(END), strict=False)
        sequences = zip(self._sequences, repeat(END), strict=False)
        return chain.from_iterable(chain.from_iterable(chain(mappings, sequences)))
