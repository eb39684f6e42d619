"""Requests to one pipeline, in an order, and what each of them must give."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

import fxcache
from bench.pipelines.check import INTERVAL, forget_runs
from bench.pipelines.draw import draw, same
from bench.pipelines.recipe import PipelineRecipe
from fxcache.runtime.denoisers import denoisers_of

Build = Callable[[], Any]
Draw = Callable[[Any], list[Tensor]]
Change = Callable[[Any], object]
Optimize = Callable[[fxcache.Policy], Change]
Counts = Mapping[str, tuple[int, int]]

EVERY_THIRD = fxcache.Uniform(INTERVAL)


def unchanged(pipe: Any) -> None:
    """Leave the pipeline as it is."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        draw: Calls the pipeline, with the same noise each time.
        change: What the user changes in the pipeline before it.
        reuses: Whether a step of it can reuse anything.
    """

    draw: Draw
    change: Change = unchanged
    reuses: bool = True


@dataclass(frozen=True)
class Drawn:
    """What one request gave.

    Attributes:
        results: The tensors of the result.
        counts: The refreshes and the steps of each denoiser.
    """

    results: list[Tensor]
    counts: Counts


def whole(policy: fxcache.Policy) -> Change:
    """Return a function that optimises a pipeline."""
    return lambda pipe: fxcache.optimize(pipe, policy)


def each_module(policy: fxcache.Policy) -> Change:
    """Return a function that optimises the denoisers of a pipeline, but not the pipeline."""
    return lambda pipe: [fxcache.optimize(m, policy) for m in denoisers_of(pipe).values()]


def in_order(
    build: Build,
    requests: Sequence[Request],
    policies: Iterable[fxcache.Policy] = (EVERY_THIRD,),
    optimize: Optimize = whole,
) -> list[str]:
    """Send requests to one optimised pipeline. Return what does not hold.

    It must hold that each request gets the bits of a plain pipeline if every step refreshes. With
    each of the policies, it must get the bits and the refreshes that it gets alone, in a new
    pipeline in which all changes so far were made before ``optimize``.

    Args:
        build: Builds a pipeline, always the same.
        requests: The requests. A change stays for the following ones.
        policies: The policies.
        optimize: Returns a function that optimises a pipeline with a policy.
    """
    faults = []
    plain = [drawn.results for drawn in each_alone(build, requests)]
    # A pipeline that no request changes keeps its captures for the next policy.
    stays = all(request.change is unchanged for request in requests)
    pipe = build()
    exact = together(pipe, requests, optimize(fxcache.Uniform(1)))
    for n, drawn in enumerate(exact):
        if not same(drawn.results, plain[n]):
            faults.append(f"request {n + 1}: refreshing at every step changes the result")
    for policy in policies:
        lone = each_alone(build, requests, optimize(policy))
        pipe = pipe if stays else build()
        for n, drawn in enumerate(together(pipe, requests, optimize(policy))):
            found = compared(drawn, lone[n], plain[n], requests[n].reuses)
            faults += [f"{type(policy).__name__}, request {n + 1}: {fault}" for fault in found]
    return faults


def compared(drawn: Drawn, expected: Drawn, plain: list[Tensor], reuses: bool) -> list[str]:
    """Return in what a request differs from the same one alone, or does not reuse anything."""
    faults = []
    if not same(drawn.results, expected.results):
        faults.append("the result differs from that of the request alone")
    if drawn.counts != expected.counts:
        faults.append(f"refreshes and steps {drawn.counts}, alone {expected.counts}")
    if reuses and same(drawn.results, plain):
        faults.append("nothing was reused")
    if reuses and any(refreshes == steps > 1 for refreshes, steps in drawn.counts.values()):
        faults.append(f"each step refreshed: {drawn.counts}")
    return faults


def each_alone(
    build: Build, requests: Sequence[Request], optimize: Change | None = None
) -> list[Drawn]:
    """Send each request alone, see ``alone``. The same one after the same changes is sent once."""
    drawn: dict[tuple[Request, ...], Drawn] = {}
    found = []
    for n, request in enumerate(requests):
        changes = tuple(r for r in requests[:n] if r.change is not unchanged)
        key = (*changes, request)
        if key not in drawn:
            drawn[key] = alone(build, requests[: n + 1], optimize)
        found.append(drawn[key])
    return found


def alone(build: Build, requests: Sequence[Request], optimize: Change | None = None) -> Drawn:
    """Make the changes of all requests in a new pipeline, then send the last one."""
    pipe = build()
    for request in requests:
        request.change(pipe)
    if optimize is not None:
        optimize(pipe)
    return sent(pipe, requests[-1], counted=optimize is not None)


def together(pipe: Any, requests: Sequence[Request], optimize: Change) -> list[Drawn]:
    """Optimise a pipeline, and send all requests to it."""
    optimize(pipe)
    drawn = []
    for request in requests:
        request.change(pipe)
        drawn.append(sent(pipe, request, counted=True))
    return drawn


def sent(pipe: Any, request: Request, counted: bool) -> Drawn:
    modules = denoisers_of(pipe) if counted else {}
    forget_runs(modules)
    results = request.draw(pipe)
    return Drawn(results, counts(pipe) if counted else {})


def counts(pipe: Any) -> Counts:
    """Return the refreshes and the steps of each denoiser's listed runs."""
    found = {}
    for name, module in denoisers_of(pipe).items():
        runs = fxcache.report(module).runs
        found[name] = (sum(len(run.refreshes) for run in runs), sum(run.steps for run in runs))
    return found


def recipe_of(recipes: Iterable[PipelineRecipe], kind: str) -> PipelineRecipe:
    """Return the recipe of this pipeline class."""
    (found,) = (recipe for recipe in recipes if recipe.kind == kind)
    return found


def built(recipe: PipelineRecipe) -> Build:
    """Return a function that builds the pipeline of a recipe, without a progress bar."""
    return lambda: silent(recipe.build())


def silent(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(recipe: PipelineRecipe, **options: Any) -> Draw:
    """Return a function that calls a pipeline as the recipe says, with other options."""
    changed = replace(recipe, call=lambda: {**recipe.call(), **options})
    return lambda pipe: draw(pipe, changed)
