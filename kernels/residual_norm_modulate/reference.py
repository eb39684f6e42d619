"""The reference in plain PyTorch. It is the oracle of the tests, and runs on the CPU."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from fxcache.kernels.forecast_read.reference import forecast_read


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
    row_scale: Tensor | None = None,
    adds_one: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the normalised and modulated sum, and the sum itself."""
    cached = terms[0] if weights is None else forecast_read(terms, weights)
    if row_scale is not None:
        cached = (cached.to(row_scale.dtype) * row_scale).to(stream.dtype)
    total = stream + cached
    channels = (total.shape[-1],)
    if rms:
        found = functional.rms_norm(total, channels, weight, eps)
    else:
        found = functional.layer_norm(total, channels, weight, bias, eps)
    if scale is not None:
        factor = over_tokens(scale, found)
        found = found * (1 + factor if adds_one else factor)
    if shift is not None:
        found = found + over_tokens(shift, found)
    return found, total


def over_tokens(modulation: Tensor, value: Tensor) -> Tensor:
    """Reshape ``[B, C]`` or ``[B, 1, C]`` to ``[B, 1, …, C]``."""
    batch, channels = modulation.shape[0], modulation.shape[-1]
    return modulation.reshape(batch, *[1] * (value.dim() - 2), channels)
