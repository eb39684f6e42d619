"""The layout of a buffer, by which buffers are allocated and compared."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from fxcache._torch import expression_of
from fxcache.program import size_of


class Layout(NamedTuple):
    """The layout of one stored tensor, without gaps or overlaps in its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, like: Tensor, symbol_values: Mapping[Any, int] | None = None) -> Self:
        """Return the layout of a buffer for values like ``like``.

        Args:
            like: A tensor; it may be fake.
            symbol_values: The values of the symbols in its sizes, if it is fake.
        """
        known = symbol_values or {}
        sizes = (tuple(like.shape), like.stride())
        shape, stride = (tuple(int(size_of(expression_of(n), known)) for n in s) for s in sizes)
        without_data = torch.empty_strided(shape, stride, dtype=like.dtype, device="meta")
        return cls(shape, torch.empty_like(without_data).stride(), like.dtype, like.device)

    def allocate(self) -> Tensor:
        """Return a new buffer. Calls in inference mode and outside may write it."""
        with torch.inference_mode(False):
            return torch.empty_strided(
                self.shape, self.stride, dtype=self.dtype, device=self.device
            )

    def fits(self, buffer: Tensor) -> bool:
        """Return whether ``buffer`` has this layout."""
        return (
            buffer.shape == self.shape
            and buffer.dtype == self.dtype
            and buffer.device == self.device
            and buffer.stride() == self.stride
        )


def fit(buffers: Sequence[Tensor], layouts: Sequence[Layout]) -> bool:
    """Return whether ``buffers`` have these ``layouts``, in order."""
    pairs = zip(layouts, buffers, strict=False)
    return len(buffers) == len(layouts) and all(layout.fits(buffer) for layout, buffer in pairs)
