"""What tracing must not leave behind in the module: values of the trace kept for the next call."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

DEPTH = 3


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Puts back, afterwards, what the block set on ``module``, its submodules and their helpers.

    A rotary embedding that keeps its frequencies after the first call would keep fake tensors.
    torch.export itself puts back some attributes of modules, and none of plain objects.
    """
    before = [(held, dict(vars(held))) for held in stateful(module)]
    values = [value for _, attributes in before for value in attributes.values()]
    dicts = [(value, dict(value)) for value in values if isinstance(value, dict)]
    lists = [(value, list(value)) for value in values if isinstance(value, list)]
    try:
        yield
    finally:
        for held, attributes in before:
            put_back(vars(held), attributes)
        for held_dict, entries in dicts:
            put_back(held_dict, entries)
        for held_list, items in lists:
            held_list[:] = items
        for function in cached_functions(module):
            function.cache_clear()


def put_back(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value


def stateful(module: nn.Module) -> list[Any]:
    """The module, its submodules, and the plain objects that they hold."""
    found: dict[int, Any] = {id(m): m for m in module.modules()}
    for submodule in list(found.values()):
        for value in vars(submodule).values():
            add_helpers(value, found, DEPTH)
    return list(found.values())


def cached_functions(module: nn.Module) -> list[Any]:
    """The functions under ``functools.lru_cache`` where the classes of the module are defined."""
    classes = {kind for submodule in module.modules() for kind in type(submodule).__mro__}
    sources = {sys.modules[kind.__module__] for kind in classes if kind.__module__ in sys.modules}
    spaces = [vars(place) for place in (*classes, *sources)]
    values = [value for space in spaces for value in list(space.values())]
    return [value for value in values if isinstance(value, functools._lru_cache_wrapper)]


def add_helpers(value: Any, found: dict[int, Any], depth: int) -> None:
    if depth == 0 or id(value) in found or isinstance(value, nn.Module | Tensor | type):
        return
    if isinstance(value, list | tuple):
        for item in value:
            add_helpers(item, found, depth - 1)
    elif isinstance(getattr(value, "__dict__", None), dict) and not callable_only(value):
        found[id(value)] = value
        for held in vars(value).values():
            add_helpers(held, found, depth - 1)


def callable_only(value: Any) -> bool:
    """Whether ``value`` is a function: nothing is kept on those."""
    return hasattr(value, "__code__") or hasattr(value, "__func__")
