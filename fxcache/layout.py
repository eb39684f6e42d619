"""The layouts of tensors: where their elements are in memory."""

from collections.abc import Sequence

from torch import Tensor

# The strides of a tensor; or, for each dimension from the outermost in memory, the dimension and
# how it is placed: a layout that does not depend on the sizes.
Layout = tuple[int, ...] | tuple[tuple[int, str], ...]


def layouts_of(tensors: Sequence[Tensor], any_size: bool) -> tuple[Layout, ...]:
    """Return the layout of each tensor.

    Args:
        tensors: The tensors, which have strides.
        any_size: Whether tensors of other sizes may have the same layout.
    """
    return tuple(map(placement_of if any_size else Tensor.stride, tensors))


def placement_of(tensor: Tensor) -> Layout:
    """Return how each dimension of ``tensor`` is placed in memory, from the outermost inwards."""
    shape, stride = tensor.shape, tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: (-stride[dim], dim))
    placed, next_step = [], 1
    for dim in reversed(order):
        placed.append((dim, kind_of(stride[dim], next_step)))
        next_step = stride[dim] * shape[dim]
    return tuple(reversed(placed))


def kind_of(step: int, dense: int) -> str:
    """Return how a dimension with the stride ``step`` is placed; ``dense`` leaves no gaps."""
    if step == 0:
        return "repeated"
    if step == dense:
        return "dense"
    return "with gaps" if step > dense else "overlapping"
