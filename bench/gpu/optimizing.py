"""The call of ``fxcache.optimize`` for all parts of the bench."""

from collections.abc import Mapping
from typing import Any

from torch import nn

import fxcache


def optimize(model: nn.Module, policy: fxcache.Policy, options: Mapping[str, Any]) -> nn.Module:
    """Optimise ``model`` in place, and return it.

    ``options`` holds ``hoist`` of ``fxcache.optimize``, and options of ``CacheConfig``.
    """
    cached = {name: value for name, value in options.items() if name != "hoist"}
    return fxcache.optimize(
        model, policy, hoist=options.get("hoist"), cache=fxcache.CacheConfig(**cached)
    )
