"""The source files of a module: the files of its classes, and the files that these import."""

import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from types import FunctionType, ModuleType

from torch import nn

from fxcache.capture.containers import is_a

# Packages that are not examined. torch restores its own state after a trace.
OWN_STATE = frozenset({"torch", "torchgen", "functorch", "fxcache", "numpy", "sympy"})
# These load and download files, and compute with no tensors of a model. They are a third of all.
FILES = frozenset(
    {
        "filelock", "httpx", "huggingface_hub", "jinja2", "markupsafe", "packaging", "regex",
        "safetensors", "tokenizers", "typing_extensions", "yaml",
    }
)  # fmt: skip
EXCLUDED = OWN_STATE | FILES
# Files that find what is installed. They hold thousands of names, and no tensors.
FINDERS = frozenset(
    {
        "accelerate.utils.imports", "diffusers.utils.import_utils",
        "transformers.models.auto.configuration_auto",
        "transformers.models.auto.image_processing_auto",
        "transformers.models.auto.modeling_auto", "transformers.utils.import_utils", "typing",
    }
)  # fmt: skip
# A class whose own attributes have only these types holds no tensors.
NO_TABLES = frozenset(
    {FunctionType, property, classmethod, staticmethod, str, bytes, int, float, bool, type}
)
STANDARD = sys.stdlib_module_names - {"__main__"}


def code_of(module: nn.Module) -> dict[ModuleType, list[type]]:
    """Return the loaded source files of ``module``, each with its classes that may hold tensors.

    These are the module's classes that the file defines, and others with tables of their own. The
    files are those that define the classes of the module, of its submodules and of their
    attributes, such as attention processors; those that these files import; and, transitively,
    those that define functions and classes named in any of these files. Files of the standard
    library and of excluded packages are left out.
    """
    classes = {kind for submodule in module.modules() for kind in type(submodule).__mro__}
    files: dict[ModuleType, list[type]] = {}
    for kind in classes:
        if (file := file_of(kind.__module__)) is not None:
            files.setdefault(file, []).append(kind)
    values = (value for submodule in module.modules() for value in vars(submodule).values())
    for name in {v.__module__ if is_a(v, FunctionType) else type(v).__module__ for v in values}:
        if isinstance(name, str) and (file := file_of(name)) is not None:
            files.setdefault(file, [])
    pending = [*files, *(f for file in files for f in imports_of(file))]
    while pending:
        file = pending.pop()
        files.setdefault(file, [])
        pending += (f for f in sources_of(file) if f not in files)
    for file, found in files.items():
        found += (kind for kind in classes_with_tables(file) if kind not in classes)
    return files


def classes_with_tables(file: ModuleType) -> Iterator[type]:
    """The classes that ``file`` defines and whose attributes may hold tensors, now or later."""
    name = vars(file).get("__name__")
    for kind in [value for value in list(vars(file).values()) if is_a(value, type)]:
        if kind.__module__ == name and has_tables(kind):
            yield kind


def has_tables(kind: type) -> bool:
    """Whether attributes of a class may hold tensors, apart from defaults of its fields."""
    if issubclass(kind, Enum) or is_dataclass(kind):
        return False
    own = list(vars(kind).items())
    return any(type(value) not in NO_TABLES and not name.startswith("__") for name, value in own)


def imports_of(file: ModuleType) -> Iterator[ModuleType]:
    """The files that ``file`` imports as modules."""
    for value in list(vars(file).values()):
        name = vars(value).get("__name__") if is_a(value, ModuleType) else None
        if isinstance(name, str) and (imported := file_of(name)) is not None:
            yield imported


def sources_of(file: ModuleType) -> Iterator[ModuleType]:
    """The files that define the functions and classes among the variables of ``file``."""
    values = [v for v in list(vars(file).values()) if is_a(v, type, FunctionType)]
    for name in {value.__module__ for value in values}:
        if isinstance(name, str) and (source := file_of(name)) is not None:
            yield source


def file_of(name: str) -> ModuleType | None:
    """Return the loaded file with this module name; None for the standard library and EXCLUDED."""
    package = name.partition(".")[0]
    if package in EXCLUDED or name in FINDERS or package in STANDARD:
        return None
    return sys.modules.get(name)
