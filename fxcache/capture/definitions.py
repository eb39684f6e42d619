"""The code that a module is made of: the files of its classes, and what those import."""

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType

from torch import nn

from fxcache.capture.containers import is_a

# Their state is their own: torch puts back what a trace changes in it.
EXCLUDED = frozenset({"torch", "torchgen", "functorch", "fxcache", "numpy", "sympy"})


def code_of(module: nn.Module) -> dict[ModuleType, list[type]]:
    """The files that ``module`` is made of, each with those of the module's classes in it.

    These are the files that define the classes of the module and its submodules and of what these
    hold, such as attention processors; the files that these import; and all files whose functions
    and classes any of these files name. Not torch's, nor Python's own.
    """
    classes = {kind for submodule in module.modules() for kind in type(submodule).__mro__}
    found: dict[ModuleType, list[type]] = {}
    for kind in classes:
        if (file := file_of(kind.__module__)) is not None:
            found.setdefault(file, []).append(kind)
    held = (value for submodule in module.modules() for value in vars(submodule).values())
    for name in {v.__module__ if is_a(v, FunctionType) else type(v).__module__ for v in held}:
        if isinstance(name, str) and (file := file_of(name)) is not None:
            found.setdefault(file, [])
    waiting = [*found, *(f for file in found for f in imports_of(file))]
    while waiting:
        file = waiting.pop()
        found.setdefault(file, [])
        waiting += (f for f in sources_of(file) if f not in found)
    return found


def imports_of(file: ModuleType) -> Iterator[ModuleType]:
    """The files that are variables of ``file``."""
    for value in list(vars(file).values()):
        name = vars(value).get("__name__") if is_a(value, ModuleType) else None
        if isinstance(name, str) and (found := file_of(name)) is not None:
            yield found


def sources_of(file: ModuleType) -> Iterator[ModuleType]:
    """The files that define the functions and classes among the variables of ``file``."""
    values = [v for v in list(vars(file).values()) if is_a(v, type, FunctionType)]
    for name in {value.__module__ for value in values}:
        if isinstance(name, str) and (found := file_of(name)) is not None:
            yield found


def file_of(name: str) -> ModuleType | None:
    """The loaded file called ``name``; None for those that are Python's or excluded."""
    package = name.partition(".")[0]
    if package in EXCLUDED or package in sys.stdlib_module_names - {"__main__"}:
        return None
    return sys.modules.get(name)
