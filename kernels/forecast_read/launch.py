"""Chooses the blocks, allocates the output, and launches the kernel."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from fxcache.kernels.forecast_read.kernel import forecast_kernel
from fxcache.kernels.launches import Wrap, identity

MOST_OLDER = 4  # the greatest number of older values
BLOCK = 2048  # values of a program


def forecast_read(terms: Sequence[Tensor], weights: Tensor, wrap: Wrap = identity) -> Tensor:
    """Return the forecast. It has the strides of ``terms[0]`` if those are dense."""
    terms = alike(terms)
    out = torch.empty_like(terms[0])
    if out.numel():
        wrap(forecast_kernel)[(triton.cdiv(out.numel(), BLOCK),)](
            *slots(terms), weights, out, out.numel(), block=BLOCK
        )
    return out


def alike(terms: Sequence[Tensor]) -> list[Tensor]:
    """Return ``terms`` with the same dense strides. Terms with other strides are copied."""
    first = torch.empty_like(terms[0], device="meta")  # dense, with the same order of dimensions
    return [
        term if term.stride() == first.stride() else term.new_empty_strided(
            first.shape, first.stride()
        ).copy_(term)
        for term in terms
    ]  # fmt: skip


def slots(terms: Sequence[Tensor]) -> list[Tensor | None]:
    """Return a value and its history, filled up with None for the kernel's parameters."""
    return [*terms, *[None] * (MOST_OLDER + 1 - len(terms))]
