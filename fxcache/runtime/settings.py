"""What one model is optimised with: every option of ``optimize``, checked together."""

from dataclasses import dataclass, field
from typing import Any

from fxcache.config import CacheConfig, CaptureConfig
from fxcache.errors import ConfigError
from fxcache.partition.choose import CutRequest
from fxcache.rewrite.adjustment import Adjustment
from fxcache.rewrite.correction import Correction
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.quantized import Quantized
from fxcache.rewrite.runner import CacheForm
from fxcache.schedule import GuidanceCache, Policy

RunLength = tuple[int, int, int]  # of a schedule, where a run begins in it, calls of the run


@dataclass(frozen=True)
class Settings:
    """The options of ``optimize``.

    Raises:
        ConfigError: Two options exclude each other.
    """

    cut: CutRequest
    policy: Policy
    adjustment: Adjustment | None = None
    correction: Correction | None = None
    guidance: GuidanceCache | None = None
    hoist: Level = Level.NOTHING
    cache: CacheConfig = field(default_factory=CacheConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    run_lengths: tuple[RunLength, ...] = ()  # that a plan knows

    def __post_init__(self) -> None:
        require_compatible(self)

    @property
    def cache_form(self) -> CacheForm:
        """How values are cached and read back."""
        dtype, kernels = self.cache.dtype, self.cache.kernels
        return CacheForm(
            self.policy.forecast_order,
            self.adjustment,
            self.correction,
            Quantized(dtype, kernels) if dtype else None,
            kernels,
        )

    @property
    def partition_key(self) -> tuple[Any, ...]:
        """Equal for two settings exactly when both lead to the same plan and the same graphs."""
        policy = self.policy
        wanted = (policy.caches, policy.points, policy.observes)
        return self.cut, self.cache.partial_evaluation, self.cache_form, wanted


def require_compatible(settings: Settings) -> None:
    """ConfigError where two options exclude each other."""
    cache = settings.cache
    if cache.dtype and (settings.policy.forecast_order or settings.correction):
        moved = "forecasts" if settings.policy.forecast_order else "corrections"
        raise ConfigError(
            f"{moved} need differences of cached values, which eight bits do not keep",
            where=f"optimize(cache=CacheConfig(dtype={cache.dtype}))",
            remedy="leave out dtype, or use a policy and a plan without them",
        )
    if cache.offload and not settings.hoist:
        raise ConfigError(
            "every step reads all weights as long as nothing is hoisted",
            where="optimize(cache=CacheConfig(offload=True))",
            remedy='pass hoist="once" or hoist="table" as well, or leave out offload',
        )
    if cache.partial_evaluation and (settings.adjustment or settings.correction):
        raise ConfigError(
            "partial evaluation caches other values than the plan's adjustment or correction fits",
            where="optimize(plan, cache=CacheConfig(partial_evaluation=True))",
            remedy="leave out partial_evaluation",
        )
