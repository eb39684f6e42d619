"""The patterns of operators that Triton kernels replace, in the order in which they are tried."""

from fxcache.rewrite.patterns import concat_group_norm_silu, forecast_read, residual_norm_modulate

PATTERNS = (
    residual_norm_modulate.PATTERN,
    concat_group_norm_silu.PATTERN,
    forecast_read.PATTERN,
)
