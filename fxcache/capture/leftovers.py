"""Values of a trace that are still held when it is over."""

import gc
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import ModuleProxy, is_fake
from fxcache.capture.containers import PLAIN, is_a, is_definition

DEPTH = 5  # how far objects within objects are followed
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def holds_leftovers(value: Any, depth: int = DEPTH) -> bool:
    """Whether ``value`` is, or holds, a fake tensor, a symbolic size or a module's stand-in."""
    if type(value) in PLAIN:
        return False
    if is_a(value, ModuleProxy, *SYMBOLS):
        return True
    if is_a(value, Tensor):
        return is_fake(value)
    if depth == 0 or is_a(value, nn.Module) or is_definition(value):
        return False
    return any(holds_leftovers(item, depth - 1) for item in gc.get_referents(value))


class LruCacheState:
    """A function under ``functools.lru_cache``: cleared only if a value of the trace is in it."""

    def __init__(self, cached: Any) -> None:
        self._cached = cached

    def added(self) -> list[Any]:
        """The keys and results in the cache."""
        return gc.get_referents(self._cached) if self._cached.cache_info().currsize else []

    def put_back(self) -> None:
        """Clear the cache: single entries cannot be removed."""
        if any(map(holds_leftovers, self.added())):
            self._cached.cache_clear()
