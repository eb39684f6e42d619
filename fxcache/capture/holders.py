"""Finds the attributes of a model that lead to the same mutable objects."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from fxcache.capture.containers import is_definition
from fxcache.capture.effects import WEIGHTS
from fxcache.capture.leftovers import referents
from fxcache.capture.preserve import DEPTH
from fxcache.effect import Place

LEADING_OUTSIDE = (FunctionType, MethodType, partial, ContextVar)


def holders(module: nn.Module, objects: Iterable[object]) -> Iterator[Place]:
    """Yield the attributes, hooks included, that lead to any of ``objects``."""
    wanted = {id(value) for value in objects}
    for path, submodule in module.named_modules() if wanted else ():
        for name, value in vars(submodule).items():
            if name not in WEIGHTS and leads_to(value, wanted):
                yield Place(path, name)


def leads_to(value: Any, wanted: set[int]) -> bool:
    """Return whether ``value`` is or refers to an object with one of these ids."""
    return any(id(item) in wanted for item in reachable(value))


def leads_outside(value: Any) -> bool:
    """Return whether ``value`` refers to code or a context variable, which lead to other values."""
    return any(isinstance(item, LEADING_OUTSIDE) for item in reachable(value))


def reachable(value: Any) -> Iterator[Any]:
    """Yield ``value`` and what it refers to."""
    seen, level = set[int](), [value]
    for _ in range(DEPTH):
        yield from level
        new = [item for item in level if id(item) not in seen]
        seen.update(map(id, new))
        level = [below for item in new for below in inside(item)]


def inside(value: Any) -> list[Any]:
    """Return the objects in ``value`` that calls of the model may change."""
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__]
    if isinstance(value, nn.Module | Tensor):
        return []
    if is_definition(value) and not isinstance(value, partial | CellType):
        return []
    return referents(value)
