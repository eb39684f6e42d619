"""What the user asked ``optimize`` for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from fxcache.partition.choose import CutRequest
from fxcache.rewrite.adjustment import Adjustment
from fxcache.rewrite.correction import Correction
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.quantized import Quantized
from fxcache.rewrite.runner import CacheForm
from fxcache.schedule import GuidanceCache, Policy


@dataclass(frozen=True)
class Settings:
    """The options of ``optimize``, validated."""

    cut: CutRequest
    policy: Policy
    adjustment: Adjustment | None = None
    correction: Correction | None = None
    guidance: GuidanceCache | None = None
    latent: str | None = None
    dynamic: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    partial_evaluation: bool = False
    kernels: bool = False
    hoist: Level = Level.NOTHING
    cache_dtype: torch.dtype | None = None
    offload: bool = False

    @property
    def cache_form(self) -> CacheForm:
        """How values are cached and read back."""
        dtype = self.cache_dtype
        return CacheForm(
            self.policy.forecast_order,
            self.adjustment,
            self.correction,
            Quantized(dtype, self.kernels) if dtype else None,
            self.kernels,
        )
