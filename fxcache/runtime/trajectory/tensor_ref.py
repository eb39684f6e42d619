"""Weak references to the tensors of the last call, for comparison with the next call."""

import weakref
from enum import IntEnum

import torch
from torch import Tensor

from fxcache._torch import base_of, version_of

# Odd constants of a multiplicative hash (Knuth, The Art of Computer Programming 3, section 6.4).
MIX, MIX_AGAIN = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Match(IntEnum):
    """How a tensor compares with that of the last call. A higher value is a greater difference."""

    SAME = 0  # the same tensor, or the same view of it, not written since
    EQUAL = 1  # a new tensor with the same content; the old one is deleted
    REWRITTEN = 2  # the same tensor, written in place since
    REPLACED = 3  # a new tensor; the old one is deleted, so that no other caller can use it
    FOREIGN = 4  # a new tensor; the old one is alive, and may belong to another caller


class TensorRef:
    """A weak reference to a tensor at one call.

    A view is identified by its base and its place in it, because pipelines slice their embeddings
    anew at every call.
    """

    __slots__ = ("_base", "_digest", "_place", "_tensor", "_version")

    def __init__(self, tensor: Tensor, digest: Tensor | None = None):
        base = base_of(tensor)
        self._tensor = weakref.ref(tensor)
        self._base = None if base is None else weakref.ref(base)
        self._place = None if base is None else place_of(tensor)
        self._version = version_of(tensor)
        self._digest = digest

    @property
    def alive(self) -> bool:
        """Whether the tensor or its base still exists."""
        return self._tensor() is not None or (self._base is not None and self._base() is not None)

    def compare(self, tensor: Tensor, digest: Tensor | None = None) -> Match:
        """Return how ``tensor`` compares with the referenced tensor.

        Args:
            tensor: The tensor of the new call.
            digest: A digest of its content. Without it, the result is never EQUAL.
        """
        if self._tensor() is tensor or self._is_same_view(tensor):
            return Match.SAME if self._version == version_of(tensor) else Match.REWRITTEN
        if self.alive:
            return Match.FOREIGN
        equal = (
            self._digest is not None and digest is not None and same_digest(self._digest, digest)
        )
        return Match.EQUAL if equal else Match.REPLACED

    def _is_same_view(self, tensor: Tensor) -> bool:
        base = self._base() if self._base else None
        return base is not None and base_of(tensor) is base and place_of(tensor) == self._place


def place_of(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...], torch.dtype]:
    """Return the elements of its memory that ``tensor`` views."""
    return int(tensor.storage_offset()), tensor.shape, tensor.stride(), tensor.dtype


@torch.no_grad()
def digest_of(tensor: Tensor) -> Tensor:
    """Return a 64-bit hash of the content of ``tensor``, on its device: ``[1]``, int64.

    It depends on every bit and on the place of every element. It does not wait for the device.
    """
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = flat.detach().contiguous().reshape(-1)
    bits = flat.view(INTEGERS[flat.element_size()]).to(torch.int64)
    weights = torch.arange(1, bits.numel() + 1, device=bits.device) * MIX
    weights = ((weights >> 29) ^ weights) * MIX_AGAIN | 1
    return (bits * weights).sum().reshape(1)


def same_digest(first: Tensor, second: Tensor) -> bool:
    """Return whether two digests are equal. Waits for their device."""
    return first.device == second.device and not first.is_meta and torch.equal(first, second)
