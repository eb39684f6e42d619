"""Numbers tensors by their values, for graphs that hold for certain values only."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import version_of

MAX_VALUES = 16


class Seen(NamedTuple):
    """A tensor whose value was compared, at its version then."""

    reference: "weakref.ref[Tensor]"
    version: int
    number: int


class Values:
    """Gives equal tensors equal numbers.

    A tensor on another device is compared once, which waits for the device. Its number is
    remembered while it is the same object and is not written to. On the CPU, tensors are compared
    each time. That costs little, and notices values that NumPy wrote.
    """

    def __init__(self) -> None:
        self._distinct: dict[int, Tensor] = {}
        self._seen: dict[int, Seen] = {}
        self._next = 0

    def number(self, tensor: Tensor) -> int:
        """Return the number of the value of ``tensor``."""
        if tensor.device.type == "cpu":
            return self._number_of_equal(tensor)
        seen = self._seen.get(id(tensor))
        if seen and seen.reference() is tensor and seen.version == version_of(tensor):
            return seen.number
        number = self._number_of_equal(tensor)
        self._seen = {i: s for i, s in self._seen.items() if s.reference() is not None}
        self._seen[id(tensor)] = Seen(weakref.ref(tensor), version_of(tensor), number)
        return number

    def value(self, number: int) -> Tensor:
        """Return the value that has this number, which is one of the last ``MAX_VALUES``."""
        return self._distinct[number]

    def _number_of_equal(self, tensor: Tensor) -> int:
        """Return the number of the known value that equals ``tensor``, or a new number."""
        for number, known in self._distinct.items():
            kind = (tensor.dtype, tensor.device)
            if (known.dtype, known.device) == kind and torch.equal(known, tensor):
                return number
        self._next += 1
        self._distinct[self._next] = tensor.detach().clone()
        if len(self._distinct) > MAX_VALUES:
            del self._distinct[min(self._distinct)]
        return self._next
