"""What tracing must not leave behind in the module: values of the trace kept for the next call."""

import functools
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

DEPTH = 4  # how far objects within objects are followed


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Puts back, afterwards, what the block set on ``module``, its submodules and their helpers.

    A rotary embedding that keeps its frequencies after the first call would keep fake tensors.
    torch.export itself puts back some attributes of modules, and none of plain objects.
    """
    before = Snapshot(module)
    try:
        yield
    finally:
        before.put_back()
        for function in cached_functions(module):
            function.cache_clear()


class Snapshot:
    """What a module keeps between its calls, to be put back as it was.

    That is the attributes of the module, of its submodules and of the plain objects that these
    hold, and the containers of their classes and of the files that define them.
    """

    def __init__(self, module: nn.Module):
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[Any, list[Any]]] = []
        self._sets: list[tuple[set[Any], set[Any]]] = []
        self._known: set[int] = set()
        for submodule in module.modules():
            self._keep(vars(submodule), DEPTH)
        for place in definitions(module):
            for value in list(vars(place).values()):
                if isinstance(value, dict | list | set | deque):
                    self._keep(value, 1)

    def _keep(self, value: Any, depth: int) -> None:
        if depth == 0 or id(value) in self._known:
            return
        if isinstance(value, nn.Module | Tensor | type) or is_function(value):
            return
        self._known.add(id(value))
        held: list[Any] = []
        if isinstance(value, dict):
            self._dicts.append((value, dict(value)))
            held = list(value.values())
        elif isinstance(value, list | deque):
            self._lists.append((value, list(value)))
            held = list(value)
        elif isinstance(value, set):
            self._sets.append((value, set(value)))
        elif isinstance(value, tuple):
            held = list(value)
        elif isinstance(getattr(value, "__dict__", None), dict):
            held = [vars(value)]
            depth += 1  # an object's attributes are as near as the object
        for item in held:
            self._keep(item, depth - 1)

    def put_back(self) -> None:
        for now, entries in self._dicts:
            for name in [name for name in now if name not in entries]:
                del now[name]
            for name, value in entries.items():
                if name not in now or now[name] is not value:
                    now[name] = value
        for sequence, items in self._lists:
            if len(sequence) != len(items) or any(
                a is not b for a, b in zip(sequence, items, strict=True)
            ):
                sequence.clear()
                sequence.extend(items)
        for members, kept in self._sets:
            members.intersection_update(kept)
            members.update(kept)


def definitions(module: nn.Module) -> list[Any]:
    """The classes of the module and its submodules, and the files they are in; not torch's."""
    classes = {kind for submodule in module.modules() for kind in type(submodule).__mro__}
    own = {
        kind for kind in classes if kind.__module__.partition(".")[0] not in ("torch", "builtins")
    }
    files = {sys.modules[kind.__module__] for kind in own if kind.__module__ in sys.modules}
    return [*own, *files]


def cached_functions(module: nn.Module) -> list[Any]:
    """The functions under ``functools.lru_cache`` in the module's classes and their files."""
    values = [value for place in definitions(module) for value in list(vars(place).values())]
    functions = [getattr(value, "__func__", value) for value in values]
    return [f for f in functions if isinstance(f, functools._lru_cache_wrapper)]


def is_function(value: Any) -> bool:
    """Whether ``value`` is a function or a method: nothing is kept on those."""
    return hasattr(value, "__code__") or hasattr(value, "__func__")
