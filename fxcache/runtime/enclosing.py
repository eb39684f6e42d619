"""Finds the pipeline's call that encloses a call of a module.

A user may optimise a denoiser and not its pipeline. The pipeline's call is on the stack then, and
delimits the run as that of an optimised pipeline does. No class of the pipeline's library changes.

The end of a call must be noticed, because the next call's frame may get the same address. Frames
have no weak references. So a mark is stored among the frame's local variables, which die with it.
"""

import sys
import weakref
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

from fxcache.runtime.session import Session
from fxcache.runtime.trajectory.position import Place

MARK = "__fxcache_call__"
# Base classes of pipelines. They are found by name, because diffusers is optional.
PIPELINES = {"DiffusionPipeline", "ModularPipeline"}


@dataclass(frozen=True)
class Schedule:
    """The noise scheduler of a pipeline, or None. It tells the place of a call.

    Attributes:
        scheduler: The noise scheduler.
        pipeline: The pipeline, which may know that its loop leaves out the last timesteps.
    """

    scheduler: Any
    pipeline: Any = None

    def place(self) -> Place | None:
        """Return the noise scheduler's place; None if the scheduler does not count its steps."""
        timesteps = getattr(self.scheduler, "timesteps", None)
        if not isinstance(timesteps, Tensor) or not hasattr(self.scheduler, "step_index"):
            return None
        index, first = self.scheduler.step_index, getattr(self.scheduler, "begin_index", None) or 0
        if index is None:  # before the first step
            index = first
        length, steps = len(timesteps), getattr(self.pipeline, "num_timesteps", None)
        if isinstance(steps, int) and index < first + steps < length:
            length = first + steps
        return Place(int(index), length)


class EnclosingCall:
    """A running call of a pipeline: a session for each module that it calls.

    Nothing but the local variables of the call's frame refers to it, so that it ends with the call.
    """

    def __init__(self, pipeline: Any):
        self._schedule = Schedule(getattr(pipeline, "scheduler", None), pipeline)
        self._sessions: dict[int, Session] = {}

    def session(self, module: nn.Module) -> Session:
        """Return the session of ``module`` in this call."""
        found = self._sessions.get(id(module))
        if found is None:
            found = self._sessions[id(module)] = Session(module, pipeline_run=self._schedule)
        return found

    def __del__(self) -> None:
        for session in self._sessions.values():
            session.close()


_calls: dict[int, weakref.ref[EnclosingCall]] = {}  # by the address of the call's frame
_others: dict[int, CodeType] = {}  # methods ``__call__`` of classes that are no pipelines


def enclosing_session(module: nn.Module) -> Session | None:
    """Return the session of the innermost pipeline's call on the stack; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__call__" and code.co_argcount and id(code) not in _others:
            call = call_of(frame)
            if call is not None:
                return call.session(module)
        frame = frame.f_back
    return None


def call_of(frame: FrameType) -> EnclosingCall | None:
    """Return the pipeline's call that runs in ``frame``; None if it is not one."""
    marked = _calls.get(id(frame))
    known = marked() if marked else None
    if known is not None:
        return known
    variables = frame.f_locals
    owner = variables.get(frame.f_code.co_varnames[0])
    call = EnclosingCall(owner) if is_pipeline_of_diffusers(owner) else None
    if call is None:
        _others[id(frame.f_code)] = frame.f_code
    else:
        variables[MARK] = call
        _calls[id(frame)] = weakref.ref(call, forget)
    if isinstance(variables, dict):  # before Python 3.13: a copy, which would keep tensors alive
        for name in [name for name in variables if name != MARK]:
            del variables[name]
    return call


def forget(ended: weakref.ref[EnclosingCall]) -> None:
    """Remove an ended call."""
    for address, call in list(_calls.items()):
        if call is ended:
            del _calls[address]


def is_pipeline_of_diffusers(owner: object) -> bool:
    """Return whether ``owner`` is a pipeline of diffusers, or derived from one."""
    return any(
        base.__name__ in PIPELINES and base.__module__.startswith("diffusers.")
        for base in type(owner).__mro__
    )
