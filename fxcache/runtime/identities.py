"""Modules and containers in flat lists, whose identities are compared at C speed."""

import weakref
from collections.abc import Iterable
from itertools import chain, repeat
from operator import is_
from typing import Any

from torch import nn

END = (object(),)  # after what each container holds


class Modules:
    """The modules of a model, the model itself first.

    The model is held weakly, and its ``__dict__`` is not held: this object is kept on the model
    itself. A model in a reference cycle would be freed by a garbage collection only.
    """

    def __init__(self, root: nn.Module):
        _, *self._below = root.modules()
        self.attributes_below = list(map(vars, self._below))  # of all modules but the model
        self._root = weakref.ref(root)

    @property
    def root(self) -> nn.Module:
        """The model, which is alive: what is kept on it is asked by its calls."""
        root = self._root()
        assert root is not None
        return root

    @property
    def all(self) -> list[nn.Module]:
        """All modules."""
        return [self.root, *self._below]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The ``__dict__`` of each."""
        return [vars(self.root), *self.attributes_below]

    def module(self, index: int) -> nn.Module:
        """The module with this number."""
        return self._below[index - 1] if index else self.root


class Containers:
    """The identities of what dictionaries, lists, tuples, sets and deques hold."""

    def __init__(self, containers: Iterable[Any]):
        found = list(containers)
        self._empty = [c for c in found if not c]
        self._mappings = [c for c in found if c and isinstance(c, dict)]
        self._sequences = [c for c in found if c and not isinstance(c, dict)]
        self._then = list(self._now())

    def hold(self) -> bool:
        """Whether each container holds the same objects, under the same keys, in the same order."""
        if any(self._empty):
            return False
        try:
            return not self._then or all(map(is_, self._now(), self._then))
        except RuntimeError:  # another thread adds to one of them
            return False

    def _now(self) -> Iterable[object]:
        """What the containers hold now. Since each ends with END, equal streams are equally long.

        One pass, dictionary by dictionary: a model's tree is larger than a processor's cache.
        """
        mappings = zip(self._mappings, map(dict.values, self._mappings), repeat(END), strict=False)
        sequences = zip(self._sequences, repeat(END), strict=False)
        return chain.from_iterable(chain.from_iterable(chain(mappings, sequences)))
