"""The options of the cache: a frozen dataclass that checks its values."""

from dataclasses import dataclass

import torch

from fxcache.checks import require_integer
from fxcache.codecs.quantized_rows import LARGEST
from fxcache.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The form and the number of cached values.

    Args:
        dtype: ``torch.int8`` or ``torch.float8_e4m3fn`` keeps one byte for each cached value, and
            one float32 scale for each token of ``[B, T, C]`` or each channel of ``[B, C, H, W]``.
            With int8 a value that is read back differs by at most 1/254 of the largest magnitude in
            its row; with float8 by at most 1/16 of itself, or 1/458,752 of that magnitude if this
            is more. By default values keep their dtype.
        partial_evaluation: Whether a refresh also applies the convolutions and linear layers that
            follow cached values, if the cost model finds that this saves time. Reuse steps then
            compute less. Their results are equal up to the order of summation.
        kernels: Whether Triton kernels read the cache and apply the norms that follow, on CUDA
            devices. The report lists each place, and why a kernel does not run there.
        offload: Whether weights that no step reads any more stay on the CPU. Not with
            ``hoist=None``.
        timings: Whether the time of each step is measured, for the report. On a GPU that takes two
            timed events a step.
        max_trajectories: The number of trajectories that keep cached values at the same time, 1 or
            more. If there are more, the least recently used one loses its values.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    dtype: torch.dtype | None = None
    partial_evaluation: bool = False
    kernels: bool = False
    offload: bool = False
    timings: bool = True
    max_trajectories: int = 64

    def __post_init__(self) -> None:
        require_cache_dtype(self.dtype)
        for name in ("partial_evaluation", "kernels", "offload", "timings"):
            require_flag(self, name)
        require_integer(self, "max_trajectories", 1)


def require_cache_dtype(dtype: object) -> None:
    """Raise ConfigError unless values can be cached in ``dtype``."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in LARGEST):
        raise ConfigError(
            f"values cannot be quantised to dtype={dtype!r}",
            where="CacheConfig(dtype=...)",
            remedy=f"pass None, or one of {', '.join(map(str, LARGEST))}",
        )


def require_flag(config: object, name: str) -> None:
    """Raise ConfigError unless the option ``name`` is a bool."""
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise ConfigError(
            f"{name}={value!r} is neither True nor False",
            where=f"{type(config).__name__}({name}=...)",
            remedy=f"pass {name}=True or {name}=False",
        )
