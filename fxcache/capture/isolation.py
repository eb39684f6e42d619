"""Isolates a trace: runs one at a time, and restores the process-wide state that it changes."""

import contextlib
import contextvars
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

import torch

from fxcache._torch import parametrizations_computed, without_code, without_lines

T = TypeVar("T")

# The thread that captures also holds this lock for the whole capture.
ONE_AT_A_TIME = threading.RLock()
# Warnings about attributes that the model assigns, which are restored; about torch's code; about
# functions that the model compiles; and about arrays that the trace makes read-only.
IGNORED = (
    ("The tensor attribute", UserWarning),
    (r"`?isinstance\(treespec, LeafSpec\)", FutureWarning),
    ("torch.compile is ignored when called inside torch.export", UserWarning),
    ("The given NumPy array is not writable", UserWarning),
)


@contextlib.contextmanager
def isolated(lines: bool) -> Iterator[None]:
    """Runs one trace at a time, without gradients, and restores process-wide state.

    torch.export uses global state. If it fails, it prints the whole graph to stderr; that output
    is dropped. Graphs get their Python code when they first run.

    Args:
        lines: Whether the trace records the source line of each node.
    """
    shared = parametrizations_computed()
    with ONE_AT_A_TIME, quiet_thread(), warnings.catch_warnings(), default_dtype(), shared:
        for message, category in IGNORED:
            warnings.filterwarnings("ignore", message, category)
        lines_mode = contextlib.nullcontext() if lines else without_lines()
        with torch.inference_mode(False), torch.no_grad(), lines_mode, without_code():
            yield


def own_context(run: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call ``run`` in a copy of the current context: context variables that it sets are dropped."""
    return contextvars.copy_context().run(run, *args, **kwargs)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    """Restores the default dtype, which some models set in ``forward``."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def quiet_thread() -> Iterator[None]:
    """Drops the output of this thread to stderr. Other threads still print."""
    before = sys.stderr
    stream: Any = OtherThreads(before)
    sys.stderr = stream
    try:
        yield
    finally:
        if sys.stderr is stream:
            sys.stderr = before


class OtherThreads:
    """A stream that drops the output of the thread that created it, and forwards the rest."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write ``text``, unless this thread created the stream."""
        if self._stream is not None and threading.get_ident() != self._thread:
            return self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
