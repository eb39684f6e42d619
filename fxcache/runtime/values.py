"""Telling tensors apart by what they hold, for graphs that were captured for certain values."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import version_of

MAX_VALUES = 16


class Seen(NamedTuple):
    """A tensor as it was when its value was last looked at."""

    reference: "weakref.ref[Tensor]"
    version: int
    number: int


class Values:
    """Gives equal tensors equal numbers.

    A tensor on another device is compared once, which waits for it; as long as it is the same
    object and was not written to, its number is remembered. On the CPU looking again costs little,
    and sees what NumPy wrote.
    """

    def __init__(self) -> None:
        self._distinct: dict[int, Tensor] = {}
        self._seen: dict[int, Seen] = {}
        self._next = 0

    def number(self, tensor: Tensor) -> int:
        """The number of the value of ``tensor``."""
        if tensor.device.type == "cpu":
            return self._equal(tensor)
        seen = self._seen.get(id(tensor))
        if seen and seen.reference() is tensor and seen.version == version_of(tensor):
            return seen.number
        number = self._equal(tensor)
        self._seen = {i: s for i, s in self._seen.items() if s.reference() is not None}
        self._seen[id(tensor)] = Seen(weakref.ref(tensor), version_of(tensor), number)
        return number

    def _equal(self, tensor: Tensor) -> int:
        """The number of the value known before that equals ``tensor``, or a new one."""
        for number, known in self._distinct.items():
            kind = (tensor.dtype, tensor.device)
            if (known.dtype, known.device) == kind and torch.equal(known, tensor):
                return number
        self._next += 1
        self._distinct[self._next] = tensor.detach().clone()
        if len(self._distinct) > MAX_VALUES:
            del self._distinct[min(self._distinct)]
        return self._next
