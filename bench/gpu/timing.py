"""Times by events on the device: the host runs ahead of it, as in a sampling loop."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from statistics import median

import torch

from bench.gpu.setup import Setup

Call = Callable[[], object]


def step_times_ms(setup: Setup, calls: Iterable[Call]) -> list[float]:
    """Milliseconds from the end of each call's work to the end of the next one's.

    Nothing waits in between, so that the time of a call includes what the host could not hide.
    """
    events = [recorded(setup)]
    for call in calls:
        call()
        events.append(recorded(setup))
    setup.runtime.synchronize()
    return [float(start.elapsed_time(end)) for start, end in pairwise(events)]


def kernel_ms(setup: Setup, call: Call) -> float:
    """Median milliseconds of a call that finds none of its tensors in the L2 cache."""
    flushed = torch.empty(setup.flushed_bytes, dtype=torch.int8, device=setup.device)
    for _ in range(3):  # compiles, and warms up
        call()
    pairs = []
    for _ in range(setup.repeats):
        flushed.zero_()
        start = recorded(setup)
        call()
        pairs.append((start, recorded(setup)))
    setup.runtime.synchronize()
    return median(float(start.elapsed_time(end)) for start, end in pairs)


def recorded(setup: Setup) -> "torch.Event":
    event = setup.runtime.Event(enable_timing=True)
    event.record()
    return event
