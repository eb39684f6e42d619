"""Where Triton kernels take the place of operators: one file a kernel, in the order of trial."""

from fxcache.rewrite.patterns import concat_group_norm_silu, forecast_read, residual_norm_modulate

PATTERNS = (
    residual_norm_modulate.PATTERN,
    concat_group_norm_silu.PATTERN,
    forecast_read.PATTERN,
)
