"""Puts back the values of tensors of the model that a trace writes to."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fxcache._torch import is_fake, is_vmapped, untraced
from fxcache.capture.foreign_memory import same_bits


class Values:
    """The values of real tensors that a traced call uses, such as those in plain attributes.

    A trace computes on fake tensors, but it runs in-place operators whose arguments are all real.
    """

    def __init__(self) -> None:
        """Start without tensors."""
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, arguments: Iterable[object]) -> None:
        """Keep the values of real tensors among the arguments of a call, and in lists of them."""
        for value in arguments:
            if isinstance(value, list | tuple):
                self.keep(value)
            elif type(value) is Tensor and id(value) not in self._known and is_real(value):
                with untraced():
                    self._known[id(value)] = value, value.clone()

    def put_back(self) -> None:
        """Restore the values, those that were kept last first: some may be views of others."""
        with untraced(), torch.no_grad():
            for tensor, value in reversed(self._known.values()):
                if not same_bits(tensor, value):
                    tensor.copy_(value)


def is_real(tensor: Tensor) -> bool:
    """Return whether ``tensor`` has values of its own."""
    return not (is_fake(tensor) or is_vmapped(tensor) or tensor.is_meta)
