"""Checks one recipe as those of pipelines are checked, with ``optimize`` of its denoisers."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

import fxcache
from bench.foreign.recipe import ForeignRecipe, Subject
from bench.pipelines.check import (
    FEWEST_CALLS,
    MODULE,
    Row,
    checked,
    described,
    limit,
    optimized_each,
)
from bench.pipelines.draw import count_calls, finite, same, seed

SESSION = "in a session"


def check(recipe: ForeignRecipe) -> Row:
    """Build the model, run the package's loop, and check it with its denoisers optimised."""
    name = recipe.name
    try:
        subject = recipe.build()
        drawing = partial(draw, name, subject)
        plain, calls = count_calls(drawing, subject.denoisers)
        if not same(drawing(), plain):
            return Row(name, calls, error="the original loop does not repeat itself")
    except Exception as error:
        return Row(name, error=f"not run: {described(error)}")
    few = [denoiser for denoiser, count in calls.items() if count < FEWEST_CALLS]
    if few:
        return Row(name, calls, error=f"{few[0]} is not called {FEWEST_CALLS} times")
    modules = subject.denoisers

    def optimize(policy: fxcache.Policy) -> list[object]:
        return optimized_each(modules.values(), policy)

    limits = {each: limit(calls[each], recipe.trajectories.get(each, 1)) for each in modules}
    loops = {MODULE: drawing, SESSION: partial(in_sessions, drawing, modules)}
    ways = {way: checked(loop, plain, modules, optimize) for way, loop in loops.items()}
    return Row(name, calls, limits, ways)


def in_sessions(
    drawing: Callable[[], list[Tensor]], modules: Mapping[str, nn.Module]
) -> list[Tensor]:
    """Run the loop inside a session of each denoiser."""
    with ExitStack() as stack:
        for module in modules.values():
            stack.enter_context(fxcache.session(module))
        return drawing()


@torch.no_grad()
def draw(name: str, subject: Subject) -> list[Tensor]:
    """Run the loop with the same noise each time, and return all tensors of the result."""
    seed()
    return [result.clone() for result in finite(name, subject.sample())]
