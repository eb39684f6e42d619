"""What one model is optimised with: every option of ``optimize``, checked together."""

from dataclasses import dataclass, field
from typing import Any

from fxcache.analysis.hoisting import HoistLevel
from fxcache.codecs.codec import Codec
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.format import CacheFormat
from fxcache.codecs.history import History
from fxcache.codecs.identity import Identity
from fxcache.codecs.quantized_rows import QuantizedRows
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.config import CacheConfig, CaptureConfig
from fxcache.errors import ConfigError
from fxcache.forecasts import Forecast
from fxcache.partition.request import CutRequest
from fxcache.policies import GuidanceCache, Policy

RunLength = tuple[int, int, int]  # of a schedule, where a run begins in it, calls of the run


@dataclass(frozen=True)
class Settings:
    """The options of ``optimize``.

    Raises:
        ConfigError: Two options exclude each other.
    """

    cut: CutRequest
    policy: Policy
    forecast: Forecast | None = None
    adjustment: ScaleShift | None = None
    correction: DriftCorrection | None = None
    guidance: GuidanceCache | None = None
    hoist: HoistLevel = HoistLevel.NOTHING
    cache: CacheConfig = field(default_factory=CacheConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    run_lengths: tuple[RunLength, ...] = ()  # that a plan knows

    def __post_init__(self) -> None:
        forecast = self.forecast or self.policy.default_forecast
        object.__setattr__(self, "forecast", forecast)
        require_compatible(self)

    @property
    def cache_format(self) -> CacheFormat:
        """How values are stored and read back."""
        return CacheFormat(self._codec, self.correction, self.adjustment, self.cache.kernels)

    @property
    def _codec(self) -> Codec:
        if self.cache.dtype:
            return QuantizedRows(self.cache.dtype, self.cache.kernels)
        return History(self.forecast) if self.forecast else Identity()

    @property
    def partition_key(self) -> tuple[Any, ...]:
        """Equal for two settings exactly when both lead to the same plan and the same graphs."""
        policy = self.policy
        wanted = (policy.caches, policy.points, policy.observes)
        return self.cut, self.cache.partial_evaluation, self.cache_format, wanted


def require_compatible(settings: Settings) -> None:
    """ConfigError where two options exclude each other."""
    cache = settings.cache
    if cache.dtype and (settings.forecast or settings.correction):
        moved = "forecasts" if settings.forecast else "corrections"
        raise ConfigError(
            f"{moved} need differences of cached values, which eight bits do not keep",
            where=f"optimize(cache=CacheConfig(dtype={cache.dtype}))",
            remedy="leave out dtype, or use a policy, a forecast and a plan without them",
        )
    if settings.forecast and settings.correction:
        raise ConfigError(
            "a correction takes the place of a forecast",
            where=f"optimize(plan, forecast={settings.forecast!r})",
            remedy="leave out forecast, or use a plan without a correction",
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
