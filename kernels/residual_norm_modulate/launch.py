"""Which blocks the kernel runs in, and on what memory."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from fxcache.kernels.forecast_read.launch import slots
from fxcache.kernels.launches import Wrap, as_is
from fxcache.kernels.residual_norm_modulate.kernel import residual_norm_modulate_kernel

VALUES_A_WARP = 512


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
    wrap: Wrap = as_is,
) -> list[Tensor]:
    """``[normalised]``, or ``[normalised, sum]``, each one token after the other."""
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
        warps = min(max(block // VALUES_A_WARP, 1), 16)
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
    """From sample to sample; 0 where there is nothing to read."""
    return 0 if given is None else given.stride(0)


def as_bytes(term: Tensor) -> Tensor:
    """``term``, or the bits of float8_e4m3fn: not every GPU's Triton knows that type."""
    return term.view(torch.uint8) if term.dtype is torch.float8_e4m3fn else term


def by_token(value: Tensor) -> Tensor:
    """``[B, T, C]`` with neighbouring channels; a copy only where strides do not allow it."""
    return (
        along_channels(value).flatten(1, -2) if value.dim() > 2 else along_channels(value)[:, None]
    )


def along_channels(value: Tensor) -> Tensor:
    """``value``, its last dimension without gaps."""
    return value if value.stride(-1) == 1 else value.contiguous()
