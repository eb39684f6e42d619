"""The call of ``fxcache.optimize`` for all parts of the bench."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

import fxcache

CACHE_OPTIONS = {field.name for field in fields(fxcache.CacheConfig)}


def optimize(model: nn.Module, policy: fxcache.Policy, options: Mapping[str, Any]) -> nn.Module:
    """Optimise ``model`` in place, and return it.

    ``options`` holds arguments of ``fxcache.optimize``, and options of ``CacheConfig``. Without
    ``hoist``, nothing is hoisted, so that a refresh has the same bits as the original.
    """
    cached = {name: value for name, value in options.items() if name in CACHE_OPTIONS}
    others = {name: value for name, value in options.items() if name not in CACHE_OPTIONS}
    config = fxcache.CacheConfig(**cached)
    return fxcache.optimize(model, policy, **{"hoist": None, **others}, cache=config)
