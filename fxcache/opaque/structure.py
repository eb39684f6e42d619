"""What a graph knows of the arguments and results of a submodule that it calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import TreeSpec, tree_flatten, tree_unflatten

# A size is an int, or that of a dimension of an argument: (index of the tensor, dimension).
Size = int | tuple[int, int]


class TensorIn:
    """Marks the place of a tensor in a ``Flat``."""

    def __repr__(self) -> str:
        return "tensor"


TENSOR = TensorIn()


class Flat(NamedTuple):
    """The structure of some values: everything but the tensors.

    Attributes:
        leaves: The flat values, with ``TENSOR`` in the place of each tensor.
        spec: Their structure.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, values: Any) -> "tuple[Flat, list[Tensor]]":
        """Return the structure of ``values``, and the tensors in them."""
        leaves, spec = tree_flatten(values)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return cls(tuple(TENSOR if isinstance(v, Tensor) else v for v in leaves), spec), tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> Any:
        """Return the values with these tensors."""
        remaining = iter(tensors)
        leaves = [next(remaining) if leaf is TENSOR else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)

    def agrees(self, other: "Flat") -> bool:
        """Return whether both have the same structure and the same values beside tensors."""
        pairs = zip(self.leaves, other.leaves, strict=False)
        return self.spec == other.spec and all(
            type(first) is type(second) and (first is second or first == second)
            for first, second in pairs
        )


@dataclass(frozen=True)
class ResultTensor:
    """A tensor that a submodule returns.

    Attributes:
        shape: Its sizes.
        stride: Its strides at capture.
        order: Its dimensions from the outermost in memory to the innermost.
        dtype: Its dtype.
        device: Its device.
    """

    shape: tuple[Size, ...]
    stride: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def varies(self) -> bool:
        """Whether a size follows an argument's."""
        return not all(isinstance(size, int) for size in self.shape)

    def empty(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return an uninitialised tensor for a call with the arguments ``tensors``."""
        like: Any = {"dtype": self.dtype, "device": self.device}
        if not self.varies:
            fixed: Any = self.shape
            return torch.empty_strided(fixed, self.stride, **like)
        shape: Any = [
            size if isinstance(size, int) else tensors[size[0]].shape[size[1]]
            for size in self.shape
        ]
        return torch.empty_permuted(shape, self.order, **like)
