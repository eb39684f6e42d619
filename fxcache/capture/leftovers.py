"""Finds values of a trace that are still referenced after it."""

import gc
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import ModuleProxy, is_fake
from fxcache.capture.containers import PLAIN, is_definition_type

DEPTH = 5  # how many levels of nested objects are searched
STAND_INS = (ModuleProxy, torch.SymInt, torch.SymFloat, torch.SymBool)


def holds_leftovers(value: Any, depth: int = DEPTH) -> bool:
    """Return whether ``value`` is or contains a fake tensor, a symbolic size or a module proxy."""
    kind = type(value)
    if issubclass(kind, STAND_INS):
        return True
    if issubclass(kind, Tensor):
        return is_fake(value)
    if depth == 0 or not is_searched(kind):
        return False
    return any(holds_leftovers(item, depth - 1) for item in referents(value))


def is_searched(kind: type) -> bool:
    """Return whether values of this type are searched: modules and code have snapshots."""
    return not issubclass(kind, nn.Module) and not is_definition_type(kind)


def referents(value: Any) -> list[Any]:
    """Return the objects that ``value`` refers to, without plain values."""
    return [item for item in gc.get_referents(value) if id(type(item)) not in PLAIN]


class LruCacheState:
    """A snapshot of a ``functools.lru_cache``, which is cleared if it holds a value of a trace."""

    def __init__(self, cached: Any) -> None:
        self._cached = cached

    def results(self) -> list[Any]:
        """Return the keys and results in the cache."""
        return referents(self._cached) if self._cached.cache_info().currsize else []

    def clear_leftovers(self) -> None:
        """Clear the whole cache if it holds a value of a trace: no entry can be removed alone."""
        if any(map(holds_leftovers, self.results())):
            self._cached.cache_clear()
