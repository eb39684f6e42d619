"""The layout of a tensor: how its dimensions follow each other in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Order(NamedTuple):
    """The layout of a tensor that is not contiguous.

    Attributes:
        dims: The dimensions of more than one element, the outermost first.
        repeated: Those with a stride of 0, as ``expand`` makes them.
        dense: Whether the elements fill their memory without gaps.
    """

    dims: tuple[int, ...]
    repeated: tuple[int, ...]
    dense: bool


Layout = Order | None


def layouts_of(tensors: Sequence[Tensor]) -> tuple[Layout, ...]:
    """Return the layout of each tensor; nothing if all are contiguous, as in most calls."""
    try:
        contiguous = all(map(Tensor.is_contiguous, tensors))
    except RuntimeError:  # a sparse tensor cannot be asked
        contiguous = False
    return () if contiguous else tuple(map(layout_of, tensors))


def layout_of(tensor: Tensor) -> Layout:
    """Return the layout of ``tensor``; None if it is contiguous, or not strided."""
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return None
    shape, stride = tensor.shape, tensor.stride()
    dims = sorted((d for d in range(tensor.dim()) if shape[d] != 1), key=lambda d: -stride[d])
    step, dense = 1, True
    for dim in reversed(dims):
        dense = dense and stride[dim] == step
        step *= shape[dim]
    return Order(tuple(dims), tuple(d for d in dims if stride[d] == 0), dense)
