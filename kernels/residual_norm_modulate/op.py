"""The operator ``fxcache::residual_norm_modulate``.

The reference runs on the CPU and in compiled graphs: Inductor fuses it into one kernel too,
together with the operators before it. Otherwise the kernel runs.
"""

from torch import Tensor
from torch.library import triton_op, wrap_triton

from fxcache.kernels.launches import is_traced
from fxcache.kernels.residual_norm_modulate import reference


@triton_op("fxcache::residual_norm_modulate", mutates_args=())
def residual_norm_modulate(
    stream: Tensor,
    terms: list[Tensor],
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
) -> list[Tensor]:
    """Compute ``norm(stream + cached) * (1 + scale) + shift`` in float32, rounded once.

    Args:
        stream: ``[B, …, C]``, float32, float16 or bfloat16.
        terms: The cached value and its history, with the shape of ``stream``.
        weights: Float32 weights of the history (see ``fxcache::forecast_read``); None without it.
        weight: The weight ``[C]`` of the norm; None for none.
        bias: The bias ``[C]`` of the norm; None for none.
        scale: ``[B, C]`` or ``[B, 1, C]``; None for none.
        shift: ``[B, C]`` or ``[B, 1, C]``; None for none.
        eps: The constant that is added to the variance.
        rms: Whether the norm is RMSNorm instead of LayerNorm.
        keeps_total: Whether to return ``stream + cached`` too.
        row_scale: Float32 ``[B, …, 1]``: the only term is int8 or float8_e4m3fn, and the cached
            value is the product of both. None if the cache is not quantised.
        adds_one: Whether the factor is ``1 + scale`` instead of ``scale``.

    Returns:
        The result, and ``stream + cached`` if ``keeps_total``.
    """
    affine, modulation = (weight, bias), (scale, shift)
    given = (stream, terms, weights, *affine, *modulation, eps, rms, keeps_total, row_scale)
    if is_traced(stream):
        return in_aten(*given, adds_one)
    from fxcache.kernels.residual_norm_modulate import launch

    return launch.residual_norm_modulate(*given, adds_one, wrap_triton)


@residual_norm_modulate.register_kernel("cpu")
def in_aten(
    stream: Tensor,
    terms: list[Tensor],
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
) -> list[Tensor]:
    found = reference.residual_norm_modulate(
        stream, terms, weights, weight, bias, scale, shift, eps, rms, row_scale, adds_one
    )
    return [value.to(stream.dtype).contiguous() for value in found[: 1 + keeps_total]]
