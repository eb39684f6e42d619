"""The modules of a model, held so that what is kept on the model does not keep it alive."""

import weakref
from typing import Any

from torch import nn


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
