"""Where the time of compiled steps goes, by kind of operator."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity

import fxcache
from bench.compiled.models import Model, timesteps
from bench.compiled.timing import Pair, Way, use

# By kind, parts of the names of events. The first kind that fits counts.
KINDS: Mapping[str, tuple[str, ...]] = {
    "fused kernels": ("cpp_",),
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolutions": ("conv",),
    "linear layers": ("linear", "addmm", "::mm", "::bmm"),
}
REST = "rest"  # copies outside of kernels, the code between kernels, and fxcache's own Python code
PERIODS = 8


@torch.no_grad()
def profiled(pair: Pair, model: Model, way: Way) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a step by kind of operator, for each kind of step.

    The steps of a run that refreshes every second step take turns with the original's. The numbers
    are medians over ``PERIODS`` steps of each kind, without the first ones.
    """
    use(pair.optimised, way, 2)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    times = timesteps(model, 2 * PERIODS + 2)
    with fxcache.session(pair.optimised, num_steps=len(times)):
        for index, timestep in enumerate(times):
            call = {**pair.inputs, "timestep": timestep}
            step = "reuse" if index % 2 else "refresh"
            found[step].append(by_kind(partial(pair.cached, **call)))
            found["original"].append(by_kind(partial(pair.original, **call)))
    return {
        step: {kind: median(sample[kind] for sample in samples[1:]) for kind in (*KINDS, REST)}
        for step, samples in found.items()
    }


def by_kind(call: Callable[[], object]) -> dict[str, float]:
    """Profile one call, and return its milliseconds by kind.

    The profiler measures elapsed time. It is scaled so that it adds up to the thread's time: other
    processes interrupt every kind in proportion to its time.
    """
    with (
        torch.profiler.profile(activities=[ProfilerActivity.CPU], acc_events=True) as profile,
        step_event(),
    ):
        started = time.thread_time()
        call()
        spent_ms = 1000 * (time.thread_time() - started)
    elapsed = grouped(profile.events() or [])
    scale = spent_ms / sum(elapsed.values())
    return {kind: scale * elapsed_ms for kind, elapsed_ms in elapsed.items()}


def step_event() -> torch.profiler.record_function:
    """Return an event around the step, which holds the time outside of operators."""
    return torch.profiler.record_function("whole step")


def grouped(events: Any) -> dict[str, float]:
    """Return the milliseconds of the events by kind.

    An event counts as the kind of the innermost event around it that has one.
    """
    spent = dict.fromkeys((*KINDS, REST), 0.0)
    for event in events:
        spent[kind_of(event)] += event.self_cpu_time_total / 1000
    return spent


def kind_of(event: FunctionEvent) -> str:
    for around in with_parents(event):
        for kind, parts in KINDS.items():
            if any(part in around.name for part in parts):
                return kind
    return REST


def with_parents(event: FunctionEvent | None) -> Iterator[FunctionEvent]:
    while event is not None:
        yield event
        event = event.cpu_parent
