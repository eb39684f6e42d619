"""What tracing changes in the whole process, put back afterwards: one trace at a time."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import torch

# Held for the whole of a capture too, by the thread that makes it.
ONE_AT_A_TIME = threading.RLock()
# Of attributes that the model assigns, which are put back; of what torch does itself; and of
# arrays that the trace has made read-only.
IGNORED = (
    ("The tensor attribute", UserWarning),
    (r"`?isinstance\(treespec, LeafSpec\)", FutureWarning),
    ("The given NumPy array is not writable", UserWarning),
)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Runs one trace at a time, without gradients, and puts back what it sets process-wide.

    torch.export keeps global state. Where it fails, it prints all of the graph to stderr.
    """
    with ONE_AT_A_TIME, quiet_thread(), warnings.catch_warnings(), default_dtype():
        for message, category in IGNORED:
            warnings.filterwarnings("ignore", message, category)
        with torch.inference_mode(False), torch.no_grad():
            yield


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    """Puts back the default dtype, which some models set while they run."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def quiet_thread() -> Iterator[None]:
    """Drops what this thread prints to stderr; other threads still print."""
    before = sys.stderr
    mine: Any = OtherThreads(before)
    sys.stderr = mine
    try:
        yield
    finally:
        if sys.stderr is mine:
            sys.stderr = before


class OtherThreads:
    """A stream that drops what the thread writes that made it, and passes on all else."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write ``text``, unless this thread made the stream."""
        if self._stream is not None and threading.get_ident() != self._thread:
            return self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
