"""The one place where the bench calls ``fxcache.optimize``."""

from collections.abc import Mapping
from typing import Any

from torch import nn

import fxcache


def optimize(model: nn.Module, policy: fxcache.Policy, options: Mapping[str, Any]) -> nn.Module:
    """``model``, optimised in place.

    ``options``: ``hoist`` of ``fxcache.optimize``, and those of ``CacheConfig``, by name.
    """
    cached = {name: value for name, value in options.items() if name != "hoist"}
    return fxcache.optimize(
        model, policy, hoist=options.get("hoist"), cache=fxcache.CacheConfig(**cached)
    )
