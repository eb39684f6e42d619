"""The options of ``optimize`` for one model, checked together."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from fxcache.analysis.hoisting import HoistLevel
from fxcache.capture.config import CaptureConfig
from fxcache.capture.provided import capture_config_of
from fxcache.codecs.codec import Codec
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.format import CacheFormat
from fxcache.codecs.history import History
from fxcache.codecs.identity import Identity
from fxcache.codecs.quantized_rows import QuantizedRows
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.config import CacheConfig
from fxcache.errors import ConfigError
from fxcache.forecasts import Forecast
from fxcache.partition.request import CutRequest
from fxcache.policies import GuidanceCache, Policy

RunLength = tuple[int, int, int]  # the schedule's length, the run's first place, its calls


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
    hoist_requested: bool = True  # if not, whatever prevents it is a note and no warning
    cache: CacheConfig = field(default_factory=CacheConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    run_lengths: tuple[RunLength, ...] = ()  # from a plan

    def __post_init__(self) -> None:
        forecast = self.forecast or self.policy.default_forecast
        object.__setattr__(self, "forecast", forecast)
        require_compatible(self)

    @property
    def cache_format(self) -> CacheFormat:
        """The format in which values are stored and read back."""
        return CacheFormat(self._codec, self.correction, self.adjustment, self.cache.kernels)

    @property
    def _codec(self) -> Codec:
        if self.cache.dtype:
            return QuantizedRows(self.cache.dtype, self.cache.kernels)
        return History(self.forecast) if self.forecast else Identity()

    def for_programs_of(self, module: nn.Module) -> "Settings":
        """Return these settings with the options with which the module's programs were captured."""
        return replace(self, capture=capture_config_of(module))

    @property
    def partition_key(self) -> tuple[Any, ...]:
        """A key that is equal for two settings exactly if both lead to the same plan and graphs."""
        policy = self.policy
        wanted = (policy.caches, policy.points, policy.observes)
        return self.cut, self.cache.partial_evaluation, self.cache_format, wanted


def require_compatible(settings: Settings) -> None:
    """Raise ConfigError if two options exclude each other."""
    cache = settings.cache
    if cache.dtype and (settings.forecast or settings.correction):
        feature = "forecasts" if settings.forecast else "corrections"
        raise ConfigError(
            f"{feature} need differences of cached values, which eight bits do not keep",
            where=f"optimize(cache=CacheConfig(dtype={cache.dtype}))",
            remedy="leave out dtype, or use a policy, a forecast and a plan without them",
        )
    if settings.forecast and settings.correction:
        raise ConfigError(
            "a correction replaces a forecast: they cannot be combined",
            where=f"optimize(plan, forecast={settings.forecast!r})",
            remedy="leave out forecast, or use a plan without a correction",
        )
    if cache.offload and not settings.hoist:
        raise ConfigError(
            "nothing is hoisted, so that every step reads all weights",
            where="optimize(cache=CacheConfig(offload=True))",
            remedy='pass hoist="once" or hoist="table" as well, or leave out offload',
        )
    if cache.partial_evaluation and (settings.adjustment or settings.correction):
        raise ConfigError(
            "partial evaluation caches other values than those that the plan's adjustment or "
            "correction was fitted to",
            where="optimize(plan, cache=CacheConfig(partial_evaluation=True))",
            remedy="leave out partial_evaluation",
        )
