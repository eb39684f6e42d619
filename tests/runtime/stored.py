"""Stores one value in a cache as the engine does, and reads the stored tensors."""

from torch import Tensor

from fxcache.codecs.codec import Codec
from fxcache.codecs.identity import Identity
from fxcache.runtime.feature_cache import FeatureCache


def store(
    cache: FeatureCache,
    value: Tensor,
    step: int = 0,
    codec: Codec | None = None,
    source: object = "a capture",
    fresh: bool = True,
) -> None:
    cache.write({0: value}, step, codec or Identity(), source, fresh)


def stored(cache: FeatureCache) -> list[Tensor]:
    return list(cache.entries[0].buffers)
