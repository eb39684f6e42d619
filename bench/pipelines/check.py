"""Checks one pipeline class: exact when every step refreshes, reusing and repeatable when not."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

import fxcache
from bench.pipelines.draw import count_calls, draw, same
from bench.pipelines.recipe import PipelineRecipe
from fxcache.runtime.denoisers import denoisers_of
from fxcache.runtime.module import engine_of

INTERVAL = 3
FEWEST_CALLS = 4
PIPELINE, MODULE = "optimize(pipe)", "optimize(module)"


@dataclass(frozen=True)
class Checked:
    """What one way of optimising a pipeline showed.

    Attributes:
        exact: Refreshing at every step gives the bits of the original pipeline.
        repeats: A second run at the interval gives the bits of the first.
        reuses: The results at the interval differ from the original ones.
        refreshes: The refreshes at the interval in one call of the pipeline, by denoiser.
        error: The error that ended the check; empty if none did.
    """

    exact: bool = False
    repeats: bool = False
    reuses: bool = False
    refreshes: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Row:
    """What is known of one pipeline class.

    Attributes:
        kind: The name of the class.
        calls: The calls of each denoiser in one call of the original pipeline.
        limits: The most refreshes of each denoiser that pass.
        ways: The results of optimising the pipeline, and of optimising its denoisers.
        error: Why the original pipeline cannot be held to anything; empty if it can.
    """

    kind: str
    calls: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    ways: Mapping[str, Checked] = field(default_factory=dict)
    error: str = ""

    def faults(self) -> list[str]:
        """Return what falls short, one line each."""
        if self.error:
            return [self.error]
        return [f"{w}: {f}" for w, c in self.ways.items() for f in faults(c, self.limits)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def faults(checked: Checked, limits: Mapping[str, int]) -> list[str]:
    """Return in what ``checked`` falls short."""
    if checked.error:
        return [checked.error]
    found = []
    if not checked.exact:
        found.append("refreshing at every step changes the result")
    if not checked.repeats:
        found.append("a second run differs from the first")
    if not checked.reuses:
        found.append("nothing was reused")
    for name, limit in limits.items():
        if checked.refreshes.get(name, 0) > limit:
            found.append(f"{name} refreshed {checked.refreshes[name]} times, at most {limit} pass")
    return found


def check(recipe: PipelineRecipe) -> Row:
    """Build the pipeline, and check both ways of optimising it."""
    try:
        pipe = recipe.build()
        pipe.set_progress_bar_config(disable=True)
        modules = denoisers_of(pipe)
        drawing = partial(draw, pipe, recipe)
        plain, calls = count_calls(drawing, modules)
        if not same(drawing(), plain):
            return Row(recipe.kind, calls, error="the original pipeline does not repeat itself")
    except Exception as error:
        return Row(recipe.kind, error=f"not run: {described(error)}")
    called = {name: modules[name] for name in modules if calls[name] >= FEWEST_CALLS}
    if not called:
        return Row(recipe.kind, calls, error=f"no denoiser is called {FEWEST_CALLS} times")
    ways = {
        PIPELINE: checked(drawing, plain, called, lambda policy: [optimized(pipe, policy)]),
        MODULE: checked(drawing, plain, called, lambda p: optimized_each(called.values(), p)),
    }
    limits = {
        name: limit(calls[name], recipe.trajectories.get(name, 1), recipe.alone.get(name, 0))
        for name in called
    }
    return Row(recipe.kind, calls, limits, ways)


def limit(calls: int, trajectories: int = 1, alone: int = 0) -> int:
    """Return the most refreshes at the interval: for each trajectory one above the ideal.

    Calls ``alone`` refresh once each.
    """
    steps = calls - alone
    return alone + trajectories * (math.ceil(steps / trajectories / INTERVAL) + 1)


def optimized(target: Any, policy: fxcache.Policy) -> Any:
    fxcache.optimize(target, policy)
    return target


def optimized_each(modules: Iterable[nn.Module], policy: fxcache.Policy) -> list[Any]:
    return [optimized(module, policy) for module in modules]


def checked(
    drawing: Callable[[], list[Tensor]],
    plain: list[Tensor],
    modules: Mapping[str, nn.Module],
    optimize: Callable[[fxcache.Policy], list[Any]],
) -> Checked:
    """Check one way of optimising the denoisers ``modules`` of ``drawing``, and restore them.

    Args:
        drawing: Samples with the same noise each time.
        plain: What it returned before.
        modules: The denoisers that it calls.
        optimize: Optimises them with a policy, and returns what to restore.
    """
    targets: list[Any] = []
    try:
        targets = optimize(fxcache.Uniform(1))
        exact = same(drawing(), plain)
        optimize(fxcache.Uniform(INTERVAL))
        forget_runs(modules)
        first = drawing()
        counts = refreshes(modules)
        again = same(drawing(), first)
        return Checked(exact, again, not same(first, plain), counts)
    except Exception as error:
        return Checked(error=described(error))
    finally:
        for target in targets:
            fxcache.restore(target)


def forget_runs(modules: Mapping[str, nn.Module]) -> None:
    """Forget the runs of each module so far, and remember all later ones."""
    for module in modules.values():
        engine = engine_of(module)
        assert engine is not None
        for run in engine.runs:
            run.listed = False  # a later call may go on with it
        engine.runs = deque()


def refreshes(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return how many refreshes the report of each module lists."""
    reports = {name: fxcache.report(module) for name, module in modules.items()}
    return {name: sum(len(r.refreshes) for r in report.runs) for name, report in reports.items()}


def described(error: Exception) -> str:
    """Return the type and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
