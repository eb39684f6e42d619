"""Chooses the blocks, allocates the outputs, and launches the kernel."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from fxcache.kernels.forecast_read.launch import slots
from fxcache.kernels.launches import Wrap, identity
from fxcache.kernels.residual_norm_modulate.kernel import residual_norm_modulate_kernel

VALUES_PER_WARP = 512


def residual_norm_modulate(
    stream: Tensor,
    terms: Sequence[Tensor],
    weights: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    rms: bool,
    keeps_total: bool,
    row_scale: Tensor | None = None,
    adds_one: bool = True,
    wrap: Wrap = identity,
) -> list[Tensor]:
    """Return ``[normalised]`` or ``[normalised, sum]``, both contiguous."""
    tokens = by_token(stream)
    batch, length, channels = tokens.shape
    cached = [by_token(as_bytes(term)) for term in terms]
    if any([term.stride() != cached[0].stride() for term in cached]):  # noqa: C419, Dynamo
        cached = [term.contiguous() for term in cached]
    outs = [stream.new_empty(stream.shape) for _ in range(1 + keeps_total)]
    if tokens.numel():
        affine = [contiguous(given) for given in (weight, bias)]
        modulation = [None if given is None else along_channels(given) for given in (scale, shift)]
        block = int(triton.next_power_of_2(channels))
        warps = min(max(block // VALUES_PER_WARP, 1), 16)
        read = (tokens, *slots(cached), weights, *affine, *modulation, contiguous(row_scale))
        written = (outs[0], outs[1] if keeps_total else None)
        layouts = (*tokens.stride()[:2], *cached[0].stride()[:2], *map(batch_stride, modulation))
        arguments = (*read, *written, length, channels, *layouts, eps)
        wrap(residual_norm_modulate_kernel)[(batch * length,)](
            *arguments, rms=rms, adds_one=adds_one, block=block, num_warps=warps
        )
    return outs


def contiguous(given: Tensor | None) -> Tensor | None:
    return None if given is None else given.contiguous()


def batch_stride(given: Tensor | None) -> int:
    """Return the stride between samples; 0 for None."""
    return 0 if given is None else given.stride(0)


def as_bytes(term: Tensor) -> Tensor:
    """Return ``term``; float8_e4m3fn as uint8, because Triton does not support it on every GPU."""
    return term.view(torch.uint8) if term.dtype is torch.float8_e4m3fn else term


def by_token(value: Tensor) -> Tensor:
    """Reshape to ``[B, T, C]`` with contiguous channels. Copies only if the strides require it."""
    return (
        along_channels(value).flatten(1, -2) if value.dim() > 2 else along_channels(value)[:, None]
    )


def along_channels(value: Tensor) -> Tensor:
    """Return ``value`` with a contiguous last dimension."""
    return value if value.stride(-1) == 1 else value.contiguous()
