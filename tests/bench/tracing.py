"""Records which lines of functions run, by file, without another package."""

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

T = TypeVar("T")
Line = tuple[str, int]
COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>")


@contextmanager
def lines_that_run(folder: Path) -> Iterator[set[Line]]:
    """Yield a set that grows inside the block: file and number of each line under ``folder``."""
    ran: set[Line] = set()
    files = {str(file) for file in folder.rglob("*.py")}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        ran.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)  # for threads that begin inside the block
    try:
        yield ran
    finally:
        sys.settrace(before)
        threading.settrace(before)


def untraced(function: Callable[..., T]) -> Callable[..., T]:
    """Return ``function`` without tracing of its lines, which makes Python several times slower."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> T:
        before = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(before)

    return called


def lines_of_functions(folder: Path) -> set[Line]:
    """Return all lines of functions under ``folder``, without those that run at import."""
    return {
        (str(file), number)
        for file in folder.rglob("*.py")
        for code in functions_in(compile(file.read_text(encoding="utf-8"), str(file), "exec"))
        for _, _, number in code.co_lines()
        if number is not None
    }


def functions_in(code: CodeType) -> Iterator[CodeType]:
    """The functions defined in this code, at any depth.

    Comprehensions outside of functions are none: they run at import, which may be long past.
    """
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inside = code.co_flags & inspect.CO_OPTIMIZED
            if constant.co_flags & inspect.CO_OPTIMIZED and (
                inside or constant.co_name not in COMPREHENSIONS
            ):
                yield constant
            yield from functions_in(constant)
