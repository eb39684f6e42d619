"""The operators that graphs of artifacts may use: an allow-list by kind."""

import operator
from typing import Any

import torch

from fxcache._torch import handles_tensors, writes
from fxcache.deploy.fields import damaged
from fxcache.errors import ArtifactError

# Operators of ATen by name. torch.ops.aten also has others, which write files, change the state of
# the process, never end, or crash. Only functional overloads of these are allowed.
ALLOWED = frozenset(
    """
    __and__ __lshift__ __or__ __rshift__ _adaptive_avg_pool2d _adaptive_avg_pool3d
    _assert_tensor_metadata _cdist_forward _conj _fft_c2r _fft_r2c _log_softmax
    _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view _weight_norm abs acos acosh
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add addbmm addcdiv addcmul addmm
    addmv affine_grid_generator alias amax amin aminmax any arange argmax argmin argsort asin asinh
    atan atan2 atanh atleast_1d atleast_2d avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bilinear bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor
    bmm broadcast_to bucketize cat cdist ceil celu channel_shuffle chunk clamp clamp_max clamp_min
    clip clone col2im column_stack complex concat constant_pad_nd contiguous conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cosh cosine_similarity
    cross cumprod cumsum deg2rad detach diag diag_embed diagonal diagonal_scatter diff div divide
    dot dstack einsum elu embedding empty empty_like eq erf exp expand expand_as expm1 eye fft_fft
    fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft
    fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn fill flatten flip floor
    floor_divide fmod frac full full_like gather ge gelu ger glu greater greater_equal
    grid_sampler_2d grid_sampler_3d group_norm gt hardshrink hardsigmoid hardswish hardtanh
    heaviside hstack hypot im2col imag index index_add index_copy index_fill index_put index_select
    inner instance_norm isclose isfinite isinf isnan item kron layer_norm le leaky_relu lerp less
    less_equal linalg_cross linalg_matrix_norm linalg_multi_dot linalg_norm linalg_qr
    linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp
    logical_and logical_not logical_or logical_xor logspace logsumexp lt masked_fill masked_scatter
    masked_select matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices maximum mean meshgrid min minimum mish mm moveaxis movedim mul multiply
    mv nan_to_num nansum narrow native_group_norm native_layer_norm ne neg negative new_empty
    new_full new_ones new_zeros nonzero norm not_equal numpy_T one_hot ones ones_like outer pad
    pad_sequence pairwise_distance permute pixel_shuffle pixel_unshuffle polar positive pow prelu
    prod rad2deg real reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu remainder
    repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape
    reshape_as rms_norm roll round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter
    scatter_add scatter_reduce select select_scatter selu sgn sigmoid sign silu sin sinc sinh slice
    slice_inverse slice_scatter softmax softplus softshrink sort special_erf special_expm1 split
    split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes swapdims
    sym_numel sym_size sym_stride t take take_along_dim tan tanh tensordot threshold tile to topk
    transpose trapezoid tril triu true_divide trunc type_as unbind unflatten unfold unsqueeze
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d var var_mean vdot view view_as view_as_complex
    view_as_real vstack where xlogy zeros zeros_like
    """.split()  # noqa: SIM905, one name in a line would be 250 lines
)
PYTHON: dict[str, Any] = {
    f"operator.{name}": getattr(operator, name)
    for name in ("getitem", "add", "sub", "mul", "floordiv", "mod", "neg", "truediv")
}
PYTHON |= {
    f"torch.{name}": getattr(torch, name)
    for name in ("sym_min", "sym_max", "sym_float", "sym_int", "sym_not")
}
REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled", "flex_attention")
NAMES = {function: name for name, function in PYTHON.items()}


def name_of(target: Any) -> str:
    """Return the name of the operator ``target`` in artifacts.

    Raises:
        ArtifactError: Artifacts cannot use it.
    """
    name = NAMES.get(target) or str(target)
    region = f"higher_order.{getattr(target, '__name__', '')}"
    for candidate in (name, region):
        if is_allowed(candidate) and target_of(candidate, candidate) is target:
            return candidate
    raise ArtifactError(
        f"the operator {name} cannot be part of an artifact",
        where=name,
        remedy="leave out what calls it, such as kernels of the model's attention or quantisation",
    )


def is_allowed(name: str) -> bool:
    """Return whether ``name`` has the form of an operator that artifacts may use."""
    parts = name.split(".")
    aten = len(parts) == 3 and parts[0] == "aten" and parts[1] in ALLOWED and parts[2].isascii()
    region = len(parts) == 2 and parts[0] == "higher_order" and parts[1] in REGIONS
    return name in PYTHON or aten or region


def target_of(name: str, where: str) -> Any:
    """Return the operator with this name.

    Raises:
        ArtifactError: Artifacts cannot use it, or this version of torch does not have it.
    """
    if name in PYTHON:
        return PYTHON[name]
    if not is_allowed(name):
        raise damaged(f"the operator {name[:80]!r} is not allowed", where)
    namespace, packet, *overload = name.split(".")
    target: Any = getattr(getattr(torch.ops, namespace), packet, None)
    for part in overload:
        target = getattr(target, part, None)
    if target is None or (overload and not isinstance(target, torch._ops.OpOverload)):
        raise damaged(f"torch {torch.__version__} has no operator {name[:80]!r}", where)
    if overload and not handles_tensors(target):
        raise damaged(f"the operator {name} is not allowed", where)
    if writes(target):
        raise damaged(f"the operator {name} writes to its arguments", where)
    return target
