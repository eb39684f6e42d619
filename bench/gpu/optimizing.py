"""The one place where the bench calls ``fxcache.optimize``."""

from collections.abc import Mapping
from typing import Any

from torch import nn

import fxcache


def optimize(model: nn.Module, policy: fxcache.Policy, options: Mapping[str, Any]) -> nn.Module:
    """``model``, optimised in place; ``options`` are those of ``fxcache.optimize`` by name."""
    return fxcache.optimize(model, policy=policy, **options)
