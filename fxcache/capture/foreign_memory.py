"""Tensors that share memory with NumPy arrays. A graph holds them as constants."""

import traceback
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from fxcache._torch import traced_constants, untraced
from fxcache.capture.source import innermost
from fxcache.capture.written import Writes, constants, lifts, require_unwritten
from fxcache.errors import CaptureError

REMEDY = "make the tensor with torch.tensor(array), which copies it"


class FirstUse(NamedTuple):
    """The first use of a constant in a trace.

    Attributes:
        tensor: The constant.
        value: A copy of its value at the first use.
        line: The source line of the first use.
    """

    tensor: Tensor
    value: Tensor
    line: str


class ForeignMemory:
    """Watches the constants of a trace that share memory with other libraries.

    ``torch.from_numpy`` shares memory with its array. The graph holds the tensor as a constant and
    misses later writes by NumPy.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._first_uses: dict[str, FirstUse] = {}

    def observe(self) -> None:
        """Copy the constants that were added to the trace since the last call."""
        constants = traced_constants()
        if len(constants) == self._seen:
            return
        self._seen = len(constants)
        with untraced():
            for name, tensor in constants.items():
                if name not in self._first_uses and is_foreign(tensor):
                    line = innermost(traceback.extract_stack())
                    self._first_uses[name] = FirstUse(tensor, tensor.clone(), line)

    def require_unchanged(self) -> None:
        """Raise CaptureError if a constant has changed since its first use."""
        self.observe()
        with untraced():
            for use in self._first_uses.values():
                if not same_bits(use.tensor, use.value):
                    raise CaptureError(
                        "forward writes to a NumPy array after it has made a tensor from it",
                        where=use.line,
                        remedy=REMEDY,
                    )


def own_constants(exported: ExportedProgram) -> None:
    """Replace the constants that ``forward`` makes from NumPy arrays by copies.

    The next call of ``forward`` may write other values to the array.

    Raises:
        CaptureError: The graph writes to memory that NumPy can read.
    """
    writes = Writes(exported)
    for name, tensor, placeholder in constants(exported):
        lifted = lifts(placeholder)
        if lifted and is_foreign(tensor):
            written = chain.from_iterable(map(writes.to, lifted))
            require_unwritten(written, "memory that a tensor shares with a NumPy array")
            exported.constants[name] = tensor.clone()


def is_foreign(tensor: Tensor) -> bool:
    """Whether another library owns the memory of ``tensor``, which torch then cannot resize."""
    return not tensor.is_meta and not tensor.untyped_storage().resizable()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors of equal shape and dtype hold the same bits, including NaN."""
    pair = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(*pair)
