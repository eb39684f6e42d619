"""Modules and containers in flat lists, whose identities are compared at C speed."""

import weakref
from collections.abc import Iterable
from itertools import chain, repeat
from operator import is_
from typing import Any

from torch import nn

END = (object(),)  # marks the end of each container's content


class Modules:
    """The modules of a model, the model itself first.

    This object is kept on the model itself. Therefore it refers to the model weakly, and not to its
    ``__dict__``: only a garbage collection would free a model in a reference cycle.
    """

    def __init__(self, root: nn.Module):
        _, *self._below = root.modules()
        self.attributes_below = list(map(vars, self._below))  # of all modules except the model
        self._root = weakref.ref(root)

    @property
    def root(self) -> nn.Module:
        """The model. It is alive, because only its calls use this object."""
        root = self._root()
        assert root is not None
        return root

    @property
    def all(self) -> list[nn.Module]:
        """All modules."""
        return [self.root, *self._below]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The ``__dict__`` of each module."""
        return [vars(self.root), *self.attributes_below]

    def module(self, index: int) -> nn.Module:
        """Return the module with this index."""
        return self._below[index - 1] if index else self.root


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
