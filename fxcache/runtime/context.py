"""What a pipeline says of the call it is about to make: ``with model.cache_context("cond"):``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import nn


class Announcement(NamedTuple):
    """What a pipeline says of a call.

    Attributes:
        name: Of the branch of guidance that the call computes.
        step_index: The number of the step; None if nothing tells.
        num_steps: How many steps the run has; None if nothing tells.
    """

    name: str
    step_index: int | None = None
    num_steps: int | None = None


Open = tuple[nn.Module, Announcement]
open_contexts: ContextVar[tuple[Open, ...]] = ContextVar("fxcache_contexts", default=())


def announcing(original: Callable[..., Any]) -> Callable[..., Any]:
    """diffusers' ``cache_context`` of a model, which fxcache listens to as well."""

    @contextmanager
    def cache_context(self: nn.Module, name: str, **options: Any) -> Iterator[None]:
        announced = Announcement(
            name, options.get("step_index"), options.get("num_inference_steps")
        )
        before = open_contexts.get()
        open_contexts.set((*before, (self, announced)))
        try:
            with original(self, name, **options):
                yield
        finally:
            open_contexts.set(before)

    return cache_context


def announcement_of(module: nn.Module) -> Announcement | None:
    """What is said of calls of ``module`` in this thread or task."""
    for held, announced in reversed(open_contexts.get()):
        if held is module:
            return announced
    return None
