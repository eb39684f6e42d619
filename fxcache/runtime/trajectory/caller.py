"""What is known about the caller of a call: its scope, and what a pipeline announces.

A pipeline of diffusers announces its calls by ``with model.cache_context("cond"):``.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import nn

from fxcache.runtime.trajectory.position import Place
from fxcache.runtime.trajectory.scope import AnyScope


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


class Caller(NamedTuple):
    """What is known about the caller, apart from the arguments of the call.

    Attributes:
        scope: The scope of the call: a session, a key, or one call of a pipeline.
        kind: A key of the shapes, dtypes and options of the call, and of the hooks.
        name: The name that the pipeline gives the trajectory; empty if it gives none.
        place: The position of the pipeline in its schedule; None if unknown.
    """

    scope: AnyScope
    kind: Hashable
    name: str = ""
    place: Place | None = None


def caller_of(
    scope: AnyScope, kind: Hashable, announcement: Announcement | None, place: Place | None
) -> Caller:
    """Return the caller. An announcement of the pipeline takes precedence over ``place``."""
    if announcement is None:
        return Caller(scope, kind, "", place)
    if announcement.step_index is not None:
        place = Place(announcement.step_index, announcement.num_steps)
    return Caller(scope, kind, announcement.name, place)
