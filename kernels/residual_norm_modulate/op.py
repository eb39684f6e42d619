"""The operator ``fxcache::residual_norm_modulate``: the kernel, and elsewhere the reference.

That is on the CPU, and in graphs that are compiled: Inductor fuses the reference to one kernel too,
and with what comes before it, for which ours would have to wait.
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
    """``norm(stream + cached) * (1 + scale) + shift``, and the sum where ``keeps_total``.

    ``stream`` ``[B, …, C]``; ``terms``: what is cached, of the same shape, and its history, read by
    float32 ``weights`` (see ``fxcache::forecast_read``). ``rms``: RMSNorm in place
    of LayerNorm. With ``row_scale``, float32 ``[B, …, 1]``, the one term is int8 or float8_e4m3fn,
    and what is cached is its product with that. ``weight``, ``bias`` ``[C]`` and ``scale``,
    ``shift`` ``[B, C]`` or ``[B, 1, C]``, each where there is one; without ``adds_one``, ``scale``
    is the factor itself. Float32, float16 or bfloat16; arithmetic in float32, rounded once.
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
