"""Contenders under torch.compile: exact counts of graphs, and times with Inductor."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx

from bench.peers.contender import Contender
from bench.peers.counting import computed, flops_of
from bench.peers.subject import Ask, Live, Subject, sample
from bench.peers.timing import (
    MakeClock,
    Row,
    ThreadClock,
    Timed,
    call_times_ms,
    times_of,
    told,
)
from fxcache._torch import compilations

RUNS = 3  # the last one compiles nothing more, if the contender ever settles
ROUNDS = 3
LIMIT_S = 180  # for a contender's compilation


class Graphs:
    """A backend for torch.compile that counts graphs and their calls, and changes nothing."""

    def __init__(self) -> None:
        self.compiled = 0
        self.calls = 0

    def __call__(self, graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return run


def count_graphs(make: Callable[[], Subject], contender: Contender, ask: Ask) -> Row:
    """Compile a contender with a backend that counts, and make ``RUNS`` runs."""
    subject, graphs = make(), Graphs()
    calls: list[int] = []

    def watch(call: Callable[[], Tensor]) -> Tensor:
        before = graphs.calls
        predicted = call()
        calls.append(graphs.calls - before)
        return predicted

    with contender.attach(subject, ask) as live, ExitStack() as stack:
        refreshed = computed(flops_of(subject, live, ask))
        stack.enter_context(live.compiling())
        with compilations() as found:
            live.model.compile(backend=graphs)
            for _ in range(RUNS):
                calls.clear()
                sample(subject, live, ask, watch)
    kinds = kinds_of(calls, refreshed)
    return {
        "graphs": graphs.compiled,
        "graphs_refresh": kinds[True],
        "graphs_reuse": kinds[False],
        "breaks": sum(found.breaks.values()),
        "recompilations": len(found.recompilations),
    }


def kinds_of(calls: Sequence[int], refreshed: Sequence[int]) -> dict[bool, float | None]:
    """Return the median number of graphs of a call, by whether it computes the model."""
    return {
        kind: median(same)
        if (same := [n for i, n in enumerate(calls) if (i in refreshed) is kind])
        else None
        for kind in (True, False)
    }


@dataclass(frozen=True)
class Way:
    """How contenders are compiled and timed.

    Attributes:
        options: Keyword arguments of ``torch.compile``.
        clock: Makes the clock of a run; by default that of the thread, for models on the CPU.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    clock: MakeClock = ThreadClock


ON_CPU = Way()


def compiled_row(
    make: Callable[[], Subject],
    contender: Contender,
    plain: Contender,
    ask: Ask,
    way: Way = ON_CPU,
) -> Row:
    """Compile a contender with Inductor, and time it in turns with the uncompiled model."""
    torch._dynamo.reset()
    try:
        with contender.attach(make_once := make(), ask) as live:
            refreshed = computed(flops_of(make_once, live, ask))
            with plain.attach(other := make(), ask) as base, live.compiling():
                row = timed_pair((make_once, live), (other, base), refreshed, ask, way)
    except Exception as error:  # any error of a peer is its result
        return {"error": told(error)}
    finally:
        torch._dynamo.reset()
    return row


Pair = tuple[Subject, Live]


def timed_pair(entrant: Pair, plain: Pair, refreshed: Sequence[int], ask: Ask, way: Way) -> Row:
    """Return the times of a compiled contender; the speed-up is over the uncompiled model."""
    live = entrant[1]
    live.model.compile(**way.options)
    started = time.perf_counter()
    with limited(LIMIT_S):
        for _ in range(RUNS):
            sample(entrant[0], live, ask)
    took_s = time.perf_counter() - started
    runs: list[Timed] = []
    for _ in range(ROUNDS):
        before_ms = sum(call_times_ms(*plain, ask, way.clock))
        calls_ms = call_times_ms(*entrant, ask, way.clock)
        after_ms = sum(call_times_ms(*plain, ask, way.clock))
        runs.append(Timed(calls_ms, (before_ms + after_ms) / 2))
    plain_ms = median(run.plain_ms for run in runs)
    return {"first_runs_s": took_s, **times_of(runs, refreshed, plain_ms)}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside the block after some seconds."""

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"not compiled within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
