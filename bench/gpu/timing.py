"""Measures times with events on the device, while the host runs ahead as in a sampling loop."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from bench.gpu.setup import Setup

Call = Callable[[], object]


def step_times_ms(setup: Setup, calls: Iterable[Call]) -> list[float]:
    """Return the milliseconds from the end of each call's work to the end of the next call's.

    The host does not wait in between. So a time includes host time only if the device was idle.
    """
    events = [record_event(setup)]
    for call in calls:
        call()
        events.append(record_event(setup))
    setup.runtime.synchronize()
    return [float(start.elapsed_time(end)) for start, end in pairwise(events)]


def kernel_ms(setup: Setup, call: Call) -> float:
    """Return the median milliseconds of a call whose tensors are not in the L2 cache."""
    flushed = torch.empty(setup.flushed_bytes, dtype=torch.int8, device=setup.device)
    for _ in range(3):  # compile and warm up
        call()
    pairs = []
    for _ in range(setup.repeats):
        flushed.zero_()
        start = record_event(setup)
        call()
        pairs.append((start, record_event(setup)))
    setup.runtime.synchronize()
    return median(float(start.elapsed_time(end)) for start, end in pairs)


class EventClock:
    """Times the calls of a run on the device, as ``bench.peers.timing.Clock``.

    The host does not wait until the end of the run.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._pairs: list[tuple[torch.Event, torch.Event]] = []

    def timed(self, call: Callable[[], Tensor]) -> Tensor:
        start = record_event(self._setup)
        predicted = call()
        self._pairs.append((start, record_event(self._setup)))
        return predicted

    def times_ms(self) -> list[float]:
        self._setup.runtime.synchronize()
        return [float(start.elapsed_time(end)) for start, end in self._pairs]


def record_event(setup: Setup) -> "torch.Event":
    event = setup.runtime.Event(enable_timing=True)
    event.record()
    return event
