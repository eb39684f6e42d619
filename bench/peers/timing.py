"""Times of contenders that take turns in one process, in eager mode."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bench.peers.contender import Contender
from bench.peers.counting import Counts, counted
from bench.peers.subject import Ask, Live, Subject, sample
from fxcache.depths import at_depth

ROUNDS = 3
NEIGHBOURS = 4  # entrants between two uncached runs
PLAIN = "no caching"

Row = dict[str, Any]


class Clock(Protocol):
    """Times the calls of one run."""

    def timed(self, call: Callable[[], Tensor]) -> Tensor:
        """Make a call, and return its prediction."""

    def times_ms(self) -> list[float]:
        """Return the milliseconds of each call so far."""


class ThreadClock:
    """Times calls on the CPU: the processor time of this thread."""

    def __init__(self) -> None:
        self._times_ms: list[float] = []

    def timed(self, call: Callable[[], Tensor]) -> Tensor:
        started = time.thread_time()
        predicted = call()
        self._times_ms.append(1e3 * (time.thread_time() - started))
        return predicted

    def times_ms(self) -> list[float]:
        return self._times_ms


MakeClock = Callable[[], Clock]


class Timed(NamedTuple):
    """A timed run.

    Attributes:
        calls_ms: The milliseconds of each call.
        plain_ms: The milliseconds of uncached runs just before and after it, on average.
    """

    calls_ms: list[float]
    plain_ms: float


@dataclass
class Entrant:
    """A contender that is attached, with what is known of it.

    Attributes:
        contender: The contender.
        subject: Its own subject.
        live: What is attached.
        latent: The result of the second run.
        counts: The counts of the third run.
        repeats: Whether both runs had the same result.
        runs: The timed runs.
    """

    contender: Contender
    subject: Subject
    live: Live
    latent: Tensor
    counts: Counts
    repeats: bool
    runs: list["Timed"]


def eager_rows(
    make: Callable[[], Subject],
    contenders: Sequence[Contender],
    ask: Ask,
    rounds: int = ROUNDS,
    clock: MakeClock = ThreadClock,
) -> dict[str, Row]:
    """Return a row for each contender. A contender that fails has only its error.

    Args:
        make: Builds the subject; each contender gets its own.
        contenders: The contenders. One of them is the model without caching.
        ask: The steps, and how many of them may be computed.
        rounds: How often each contender is timed.
        clock: Makes the clock of a run; by default that of the thread, for models on the CPU.
    """
    rows: dict[str, Row] = {}
    entrants: dict[str, Entrant] = {}
    with ExitStack() as stack:
        for contender in contenders:
            try:
                entrants[contender.name] = enter(stack, make(), contender, ask)
            except Exception as error:  # any error of a peer is its result
                rows[contender.name] = {"package": contender.package, "error": told(error)}
        for index in range(rounds):
            order = random.Random(index)
            at_depth(index, rounds, partial(time_round, entrants, ask, order, clock))
    for name, entrant in entrants.items():
        rows[name] = row_of(entrant, entrants)
    return {contender.name: rows[contender.name] for contender in contenders}


def enter(stack: ExitStack, subject: Subject, contender: Contender, ask: Ask) -> Entrant:
    """Attach a contender, run it, and run it again to count."""
    with ExitStack() as own:
        live = own.enter_context(contender.attach(subject, ask))
        sample(subject, live, ask)  # a first run may capture, or learn the timesteps
        latent = sample(subject, live, ask)
        counts, again = counted(subject, live, ask)
        stack.push(own.pop_all())
    return Entrant(contender, subject, live, latent, counts, torch.equal(latent, again), [])


def time_round(
    entrants: Mapping[str, Entrant], ask: Ask, order: random.Random, clock: MakeClock
) -> None:
    """Time each entrant once, in a random order, with uncached runs before and after each few.

    Other processes change the speed of the machine within seconds, so only neighbours compare.
    """
    plain = entrants[PLAIN]
    others = [entrant for name, entrant in entrants.items() if name != PLAIN]
    order.shuffle(others)
    before = call_times_ms(plain.subject, plain.live, ask, clock)
    for first in range(0, max(1, len(others)), NEIGHBOURS):
        group = others[first : first + NEIGHBOURS]
        found = [call_times_ms(one.subject, one.live, ask, clock) for one in group]
        after = call_times_ms(plain.subject, plain.live, ask, clock)
        beside_ms = (sum(before) + sum(after)) / 2
        for entrant, calls_ms in zip(group, found, strict=True):
            entrant.runs.append(Timed(calls_ms, beside_ms))
        plain.runs.append(Timed(after, sum(before)))
        before = after


def told(error: BaseException) -> str:
    """Return the first line of an error with its type."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def call_times_ms(subject: Subject, live: Live, ask: Ask, make_clock: MakeClock) -> list[float]:
    """Return the milliseconds of each call of one run."""
    clock = make_clock()
    sample(subject, live, ask, clock.timed)
    return clock.times_ms()


def row_of(entrant: Entrant, entrants: Mapping[str, Entrant]) -> Row:
    plain, counts = entrants[PLAIN], entrant.counts
    return {
        "package": entrant.contender.package,
        "setting": entrant.live.setting,
        "steps": len(counts.flops),
        "refreshed": counts.refreshed,
        "flops": counts.total_flops,
        "ideal_speedup": plain.counts.total_flops / counts.total_flops,
        "waits": counts.waits,
        "operators": counts.operators,
        "peak_bytes": counts.peak_bytes,
        "cached_bytes": counts.cached_bytes,
        "repeats": entrant.repeats,
        "agreement": agreement(entrant, entrants),
        **times_of(entrant.runs, counts.refreshed, plain_ms_of(entrants)),
    }


def plain_ms_of(entrants: Mapping[str, Entrant]) -> float:
    """Return the median milliseconds of an uncached run."""
    return median(sum(run.calls_ms) for run in entrants[PLAIN].runs)


def times_of(runs: Sequence[Timed], refreshed: Sequence[int], plain_ms: float) -> Row:
    """Return the speed-up over neighbouring uncached runs, and times.

    Times are medians of ratios to these runs, multiplied by the time of an uncached run.

    Args:
        runs: The timed runs.
        refreshed: The steps that compute the model.
        plain_ms: The time of an uncached run.
    """
    ratios = [run.plain_ms / sum(run.calls_ms) for run in runs]
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for run in runs:
        for index, spent_ms in enumerate(run.calls_ms):
            by_kind[index in refreshed].append(spent_ms / run.plain_ms * plain_ms)
    return {
        "run_ms": plain_ms / median(ratios),
        "refresh_ms": median(by_kind[True]) if by_kind[True] else None,
        "reuse_ms": median(by_kind[False]) if by_kind[False] else None,
        "speedup": median(ratios),
        "speedup_low": min(ratios),
        "speedup_high": max(ratios),
    }


def agreement(entrant: Entrant, entrants: Mapping[str, Entrant]) -> Row | None:
    """Compare the final latent with that of fxcache by the same rule."""
    twin = entrants.get(entrant.contender.twin)
    if twin is None:
        return None
    difference = (entrant.latent - twin.latent).abs().max() / twin.latent.abs().max()
    return {
        "twin": twin.contender.name,
        "same_steps": entrant.counts.refreshed == twin.counts.refreshed,
        "equal": torch.equal(entrant.latent, twin.latent),
        "difference": float(difference),
    }
