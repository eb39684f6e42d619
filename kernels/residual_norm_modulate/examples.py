"""Calls at the sizes of real models; on the meta device they take no memory."""

import torch
from torch import Tensor

from fxcache.kernels.launches import Wrap
from fxcache.kernels.residual_norm_modulate import launch

# batch, tokens, channels: of the last block of each
SD3_1024 = (2, 4096, 1536)
FLUX_1024 = (1, 4096, 3072)
EPS = 1e-6


def inputs(
    shape: tuple[int, int, int], dtype: torch.dtype, order: int = 0, device: str = "meta"
) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor, Tensor]:
    """The stream, what is cached and its derivatives, their weights, scale and shift."""
    batch, _, channels = shape
    stream, *terms = (
        torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(order + 2)
    )
    scale, shift = torch.randn(batch, 2 * channels, dtype=dtype, device=device).chunk(2, 1)
    return stream, terms, torch.randn(order, device=device) if order else None, scale, shift


def run(
    wrap: Wrap,
    stream: Tensor,
    terms: list[Tensor],
    weights: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    keeps_total: bool = False,
    rms: bool = False,
) -> list[Tensor]:
    """As the last block of a transformer does: without weights of the norm's own."""
    return launch.residual_norm_modulate(
        stream, terms, weights, None, None, scale, shift, EPS, rms, keeps_total, wrap
    )


EXAMPLES = {
    "fp16": lambda wrap: run(wrap, *inputs(SD3_1024, torch.float16)),
    "bf16": lambda wrap: run(wrap, *inputs(FLUX_1024, torch.bfloat16)),
    "bf16, order 2, sum kept": lambda wrap: run(
        wrap, *inputs(FLUX_1024, torch.bfloat16, 2), keeps_total=True
    ),
    "fp32, RMSNorm": lambda wrap: run(wrap, *inputs(SD3_1024, torch.float32), rms=True),
}
