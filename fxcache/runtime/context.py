"""The ``cache_context`` of diffusers, by which a pipeline announces its calls of the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import nn


class Announcement(NamedTuple):
    """The announcement of a call by a pipeline: ``with model.cache_context("cond"):``.

    Attributes:
        name: The name of the branch of guidance that the call computes.
        step_index: The index of the step; None if it is unknown.
        num_steps: The number of steps of the run; None if it is unknown.
    """

    name: str
    step_index: int | None = None
    num_steps: int | None = None


Open = tuple[nn.Module, Announcement]
open_contexts: ContextVar[tuple[Open, ...]] = ContextVar("fxcache_contexts", default=())


def announcing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``cache_context`` that records the announcement and calls ``original``."""

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
    """Return the innermost announcement for ``module`` in this thread or task."""
    for model, announced in reversed(open_contexts.get()):
        if model is module:
            return announced
    return None
