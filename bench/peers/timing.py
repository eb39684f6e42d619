"""Thread times of contenders that take turns in one process, in eager mode."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.peers.contender import Contender
from bench.peers.counting import Counts, counted
from bench.peers.subject import Ask, Live, Subject, sample

ROUNDS = 3
PLAIN = "no caching"

Row = dict[str, Any]


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
        times_ms: The milliseconds of each call of each timed run.
    """

    contender: Contender
    subject: Subject
    live: Live
    latent: Tensor
    counts: Counts
    repeats: bool
    times_ms: list[list[float]]


def eager_rows(
    make: Callable[[], Subject], contenders: Sequence[Contender], ask: Ask, rounds: int = ROUNDS
) -> dict[str, Row]:
    """Return a row for each contender. A contender that fails has only its error.

    Args:
        make: Builds the subject; each contender gets its own.
        contenders: The contenders. One of them is the model without caching.
        ask: The steps, and how many of them may be computed.
        rounds: How often each contender is timed.
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
            for entrant in turned(list(entrants.values()), index):
                entrant.times_ms.append(call_times_ms(entrant.subject, entrant.live, ask))
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


def turned(entrants: list[Entrant], by: int) -> list[Entrant]:
    """Return the entrants, beginning with another one in each round."""
    first = by * 7 % len(entrants)  # neighbours change, too
    return entrants[first:] + entrants[:first]


def told(error: BaseException) -> str:
    """Return the first line of an error with its type."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def call_times_ms(subject: Subject, live: Live, ask: Ask) -> list[float]:
    """Return the thread milliseconds of each call of one run."""
    times: list[float] = []

    def watch(call: Callable[[], Tensor]) -> Tensor:
        started = time.thread_time()
        predicted = call()
        times.append(1e3 * (time.thread_time() - started))
        return predicted

    sample(subject, live, ask, watch)
    return times


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
        **times_of(entrant.times_ms, plain.times_ms, counts.refreshed),
    }


def times_of(
    runs: Sequence[Sequence[float]], plain: Sequence[Sequence[float]], refreshed: Sequence[int]
) -> Row:
    """Return median times, and the speed-up over the uncached runs of the same rounds."""
    ratios = [sum(before) / sum(now) for before, now in zip(plain, runs, strict=True)]
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for run in runs:
        for index, spent in enumerate(run):
            by_kind[index in refreshed].append(spent)
    return {
        "run_ms": median(sum(run) for run in runs),
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
