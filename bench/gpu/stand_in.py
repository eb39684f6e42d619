"""A stand-in for ``torch.cuda`` with the same names, for dry runs.

The CPU runs everything synchronously and in order, so streams and waits do nothing.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

from fxcache import operators
from fxcache.runtime import offload


class Event:
    """A point in time, in place of ``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = False):
        self.enable_timing = enable_timing
        self.recorded = 0.0

    def record(self) -> None:
        self.recorded = time.perf_counter()

    def elapsed_time(self, end_event: "Event") -> float:
        """Milliseconds from this event to ``end_event``."""
        return 1000 * (end_event.recorded - self.recorded)


class Stream:
    """A queue that is always empty, in place of ``torch.cuda.Stream``."""


@contextmanager
def stream(stream: Stream) -> Iterator[None]:
    del stream
    yield


def is_available() -> bool:
    return True


def synchronize() -> None:
    pass


def empty_cache() -> None:
    pass


def reset_peak_memory_stats() -> None:
    pass


def memory_allocated() -> int:
    return 0


def memory_reserved() -> int:
    return 0


def max_memory_allocated() -> int:
    return 0


def get_device_name() -> str:
    return "CPU, dry run"


def _sleep(cycles: int) -> None:
    del cycles


@contextmanager
def pretended_device() -> Iterator[None]:
    """Treat the CPU as an accelerator: fxcache uses its kernels there and offloads from there.

    An offloaded weight is copied, as to another device. The operators of kernels run their
    references on the CPU. There is one thread, because several threads slow tiny sizes down.
    """
    threads = torch.get_num_threads()
    replaced = (
        (operators, "DEVICES", ("cpu", *operators.DEVICES)),
        (offload, "HOST", torch.device("meta")),
        (offload, "transfer", lambda values, _: values.clone()),
    )
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(patch.object(owner, name, value))
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        yield
