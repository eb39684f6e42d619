"""Finds the pipeline's call that encloses a call of a module.

A user may optimise a denoiser and not its pipeline. The pipeline's call is on the stack then, and
delimits the run as that of an optimised pipeline does. No class of the pipeline's library changes.

The end of a call must be noticed, because the next call's frame may get the same address. Frames
have no weak references. So a mark is stored among the frame's local variables, which die with it.
"""

import sys
import weakref
from types import CodeType, FrameType
from typing import Any

from torch import nn

from fxcache.runtime.schedule import MARK, Schedule, forget_copies
from fxcache.runtime.session import Session

# Base classes of pipelines. They are found by name, because diffusers is optional.
PIPELINES = {"DiffusionPipeline", "ModularPipeline"}


class EnclosingCall:
    """A running call of a pipeline: a session for each module that it calls.

    Nothing but the local variables of the call's frame refers to it, so that it ends with the call.
    """

    def __init__(self, pipeline: Any):
        self._schedule = Schedule.of(pipeline)
        self._sessions: dict[int, Session] = {}

    def session(self, module: nn.Module) -> Session:
        """Return the session of ``module`` in this call."""
        found = self._sessions.get(id(module))
        if found is None:
            found = self._sessions[id(module)] = Session(module, pipeline_run=self._schedule)
        return found

    def __del__(self) -> None:
        for session in self._sessions.values():
            session.close(cut_short=self._schedule.interrupted())


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
    forget_copies(variables)
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
