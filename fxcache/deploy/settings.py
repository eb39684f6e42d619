"""The options of ``optimize`` as JSON, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fxcache.analysis.hoisting import HoistLevel
from fxcache.calibration.plan_parts import cut_to_json, parted
from fxcache.capture.config import CaptureConfig
from fxcache.config import CacheConfig
from fxcache.deploy.fields import Fields, built, list_of
from fxcache.forecasts import Forecast
from fxcache.partition.request import require_cut_request
from fxcache.policies import GuidanceCache, Policy
from fxcache.program import dtype_name
from fxcache.runtime.settings import Settings

SETTINGS = (
    "policy", "forecast", "cut", "guidance", "hoist", "hoist_requested", "cache", "capture",
    "run_lengths",
)  # fmt: skip
MAX_LENGTHS = 65_536
CAPTURE = ("latent", "dynamic", "step_inputs", "max_captures")
CACHE = (
    *("dtype", "partial_evaluation", "kernels"),
    *("offload", "timings", "max_trajectories"),
)


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Return ``settings`` as JSON, without the weights of a plan."""
    cache, capture = settings.cache, settings.capture
    return {
        "policy": settings.policy.to_dict(),
        "forecast": settings.forecast.to_dict() if settings.forecast else None,
        "cut": cut_to_json(settings.cut),
        "guidance": asdict(settings.guidance) if settings.guidance else None,
        "hoist": settings.hoist.name.lower(),
        "hoist_requested": settings.hoist_requested,
        "cache": asdict(cache) | {"dtype": cache.dtype and dtype_name(cache.dtype)},
        "capture": {
            "latent": capture.latent,
            "dynamic": {path: list(dims) for path, dims in (capture.dynamic or {}).items()},
            "step_inputs": sorted(capture.step_inputs),
            "max_captures": capture.max_captures,
        },
        "run_lengths": [list(length) for length in settings.run_lengths],
    }


def settings_from_json(data: object, weights: Mapping[str, Tensor], where: str) -> Settings:
    """Return the settings.

    Args:
        data: The result of ``settings_to_json``.
        weights: The weights of the adjustment and of the correction, by name.
        where: The place in the artifact, for errors.

    Raises:
        ArtifactError: ``data`` describes no settings.
    """
    fields = Fields(data, where, SETTINGS)
    guidance, forecast = fields.optional("guidance", dict), fields.optional("forecast", dict)
    level = fields.one_of("hoist", [level.name.lower() for level in HoistLevel])
    lengths = [list_of(one, int, f"{where}.run_lengths") for one in fields.of("run_lengths", list)]
    if len(lengths) > MAX_LENGTHS or any(not 0 <= n <= MAX_LENGTHS for one in lengths for n in one):
        raise fields.wrong("run_lengths", "they are too many or too large")

    def make() -> Settings:
        return Settings(
            cut=require_cut_request(fields.raw("cut")),
            policy=Policy.from_dict(fields.of("policy", dict)),
            forecast=Forecast.from_dict(forecast) if forecast else None,
            guidance=GuidanceCache(**guidance) if guidance else None,
            hoist=HoistLevel[level.upper()],
            hoist_requested=fields.of("hoist_requested", bool),
            cache=cache_from_json(Fields(fields.raw("cache"), f"{where}.cache", CACHE)),
            capture=capture_from_json(Fields(fields.raw("capture"), f"{where}.capture", CAPTURE)),
            run_lengths=tuple((a, b, c) for a, b, c in lengths),
            **parted(weights),
        )

    return built(make, where)


def cache_from_json(fields: Fields) -> CacheConfig:
    """Return the options of the cache."""
    name = fields.optional("dtype", str)
    given = {option: fields.raw(option) for option in CACHE}
    return CacheConfig(**given | {"dtype": name and getattr(torch, name)})


def capture_from_json(fields: Fields) -> CaptureConfig:
    """Return the options of captures."""
    return CaptureConfig(
        latent=fields.optional("latent", str),
        dynamic={path: tuple(dims) for path, dims in fields.pairs("dynamic")} or None,
        step_inputs=frozenset(fields.items("step_inputs", str)),
        max_captures=fields.of("max_captures", int),
    )
