"""A pytest plugin that makes this machine look bare: ``python -m pytest -p tests.bare_machine``.

Files outside the checkout, Python, temporary folders and the system's own folders cannot be opened,
as if they were missing. A test that needs one fails, and its error names the file. Libraries that
go on without such a file, as on a bare machine, may do so.
"""

import errno
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
SYSTEM = ("/proc", "/sys", "/dev", "/etc")
# Not the whole prefix: that of a system's Python is /usr, where its fonts are.
OF_PYTHON = ("bin", "include", "lib", "lib64")


def visible_folders() -> tuple[str, ...]:
    """Return the folders that exist on a bare machine, with links resolved."""
    prefixes = {sys.prefix, sys.base_prefix}
    python = [os.path.join(prefix, part) for prefix in prefixes for part in OF_PYTHON]
    environment = [sys.prefix] if sys.prefix != sys.base_prefix else []
    folders = [*python, *environment, str(CHECKOUT), tempfile.gettempdir(), *SYSTEM]
    return tuple(os.path.realpath(folder) for folder in folders)


def is_visible(file: str, folders: tuple[str, ...]) -> bool:
    """Return whether ``file``, with links resolved, is in one of ``folders``."""
    real = os.path.realpath(file)
    return any(real == folder or real.startswith(f"{folder}/") for folder in folders)


def require_visible(file: Any, folders: tuple[str, ...]) -> None:
    """Raise FileNotFoundError for a hidden file. Descriptors of open files pass."""
    if not isinstance(file, str | bytes | os.PathLike):
        return
    name = os.fsdecode(file)
    if not is_visible(name, folders):
        raise FileNotFoundError(errno.ENOENT, "A bare machine does not have this file", name)


def hide_files(folders: tuple[str, ...]) -> None:
    """Hide every file outside ``folders`` from this process until it ends."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            require_visible(arguments[0], folders)

    sys.addaudithook(hook)
    hide_from_pillow(folders)


def hide_from_pillow(folders: tuple[str, ...]) -> None:
    """Hide fonts from Pillow, which opens them in C, without Python's audit hooks."""
    fonts: Any = importlib.import_module("PIL._imagingft")
    original: Callable[..., Any] = fonts.getfont

    def getfont(file: Any, *arguments: Any, **options: Any) -> Any:
        if file:  # empty where the font is passed as bytes
            require_visible(file, folders)
        return original(file, *arguments, **options)

    fonts.getfont = getfont


def pytest_configure() -> None:
    hide_files(visible_folders())
