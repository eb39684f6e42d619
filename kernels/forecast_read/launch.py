"""Which blocks the kernel runs in, and on what memory."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from fxcache.kernels.forecast_read.kernel import forecast_kernel
from fxcache.kernels.launches import Wrap, as_is

MOST_OLDER = 4
BLOCK = 2048  # values of a program


def forecast_read(terms: Sequence[Tensor], weights: Tensor, wrap: Wrap = as_is) -> Tensor:
    """Laid out as ``terms[0]`` is where that has no gaps."""
    terms = alike(terms)
    out = torch.empty_like(terms[0])
    if out.numel():
        wrap(forecast_kernel)[(triton.cdiv(out.numel(), BLOCK),)](
            *slots(terms), weights, out, out.numel(), block=BLOCK
        )
    return out


def alike(terms: Sequence[Tensor]) -> list[Tensor]:
    """``terms`` in one layout, without gaps; copies only of those that are not so already."""
    first = torch.empty_like(terms[0], device="meta")  # dense, in the same order of dimensions
    return [
        term if term.stride() == first.stride() else term.new_empty_strided(
            first.shape, first.stride()
        ).copy_(term)
        for term in terms
    ]  # fmt: skip


def slots(terms: Sequence[Tensor]) -> list[Tensor | None]:
    """A value and its history as kernels take them: as many as there may be."""
    return [*terms, *[None] * (MOST_OLDER + 1 - len(terms))]
