"""Thread times of steps of the original and of runs with fxcache, which take turns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

import fxcache
from bench.compiled.models import Inputs, Model, timesteps, twin
from fxcache.depths import at_depth
from fxcache.gate.ratios import ratio_of

LENGTH = 30  # steps of a run, a multiple of each interval


@dataclass(frozen=True)
class Way:
    """How fxcache is used. ``options`` are those of ``optimize``."""

    options: Mapping[str, Any]
    partial_evaluation: bool = False


WAYS: Mapping[str, Way] = {
    "plain": Way({"hoist": None}),
    "hoisted, partially evaluated": Way({"hoist": "table"}, partial_evaluation=True),
}


class Pair(NamedTuple):
    """The original, and the optimised model with the same weights."""

    original: Any
    cached: Any
    optimised: nn.Module  # the module that ``cached`` calls
    inputs: Inputs


@dataclass
class Round:
    """Thread seconds of the steps of one run, and of as many steps of the original.

    ``start`` is the first step of the run, and ``ideal`` the run's speed-up in FLOPs.
    """

    original: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)  # without the first step of the run
    reuse: list[float] = field(default_factory=list)
    start: float = 0.0
    ideal: float = 1.0

    @property
    def realised(self) -> float:
        """The speed-up of the whole run, with the work at its start."""
        return sum(self.original) / (self.start + sum(self.refresh) + sum(self.reuse))


def pair(model: Model, way: Way) -> Pair:
    """Make the model and its optimised twin."""
    original = model.build()
    optimised = twin(original)
    use(optimised, way, 2)
    return Pair(original, optimised, optimised, model.inputs(original))


def compiled(pair: Pair) -> Pair:
    """Compile both with Inductor, which happens at their first calls."""
    torch.compiler.reset()
    return pair._replace(original=torch.compile(pair.original), cached=torch.compile(pair.cached))


def use(optimised: nn.Module, way: Way, interval: int) -> None:
    """Refresh every ``interval`` steps from now on."""
    cache = fxcache.CacheConfig(partial_evaluation=way.partial_evaluation)
    fxcache.optimize(optimised, fxcache.Uniform(interval), cache=cache, **way.options)


def measured(
    pair: Pair, model: Model, way: Way, interval: int, rounds: int, length: int = LENGTH
) -> list[Round]:
    """Time runs at one interval. One round before them compiles and warms up."""
    use(pair.optimised, way, interval)
    time_one = partial(one_round, pair, model, interval, length)
    time_one()
    return [at_depth(index, rounds, time_one) for index in range(rounds)]


@torch.no_grad()
def one_round(pair: Pair, model: Model, interval: int, length: int) -> Round:
    """Make one run. After each refresh and its reuse steps, the original makes as many steps."""
    found = Round()
    calls = [{**pair.inputs, "timestep": t} for t in timesteps(model, length)]
    with fxcache.session(pair.optimised, num_steps=length):
        for index, call in enumerate(calls):
            spent = seconds(partial(pair.cached, **call))
            if index == 0:
                found.start = spent
            else:
                (found.reuse if index % interval else found.refresh).append(spent)
            if index % interval == interval - 1:
                period = calls[index - interval + 1 : index + 1]
                found.original += [seconds(partial(pair.original, **c)) for c in period]
    run = fxcache.report(pair.optimised).runs[-1]
    assert run.refreshes == list(range(0, length, interval)), "the steps refresh as planned"
    found.ideal = run.ideal_speedup or 1.0
    return found


def seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def summary(rounds: list[Round], interval: int, plain_ideal: float | None) -> dict[str, Any]:
    """Return the speed-ups of the rounds, and the times of steps by kind.

    Args:
        rounds: The rounds at this interval.
        interval: The interval.
        plain_ideal: The ideal speed-up without hoisting and partial evaluation. None if these
            rounds are without them.
    """
    ideal = rounds[-1].ideal
    against = plain_ideal or ideal
    ratio = ratio_of([r.realised / against for r in rounds], 1.0)
    times = {
        kind: 1000 * median(t for r in rounds for t in getattr(r, kind))
        for kind in ("original", "refresh", "reuse")
    }
    return {
        "interval": interval,
        "rounds": len(rounds),
        "ideal": ideal,
        "plain_ideal": against,
        "realised": median(r.realised for r in rounds),
        "realised_over_plain_ideal": {"median": ratio.time, "low": ratio.low, "high": ratio.high},
        "start_ms": 1000 * median(r.start for r in rounds),
        **{f"{kind}_ms": value for kind, value in times.items()},
        "refresh_over_original": median(median(r.refresh) / median(r.original) for r in rounds),
        "reuse_over_original": median(median(r.reuse) / median(r.original) for r in rounds),
    }
