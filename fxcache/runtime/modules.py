"""A list of a model's modules that does not keep the model alive."""

import weakref
from typing import Any

from torch import nn


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
