"""Finds the pipeline's call that encloses a call of a module.

A user may optimise a denoiser and not its pipeline. The pipeline's call is on the stack then, and
delimits the run as that of an optimised pipeline does. No class of the pipeline's library changes.

The end of a call must be noticed, because the next call's frame may get the same address. Frames
have no weak references. So a mark is stored among the frame's local variables, which die with it.
"""

import sys
import weakref
from types import CodeType, FrameType
from typing import Any, Self

from torch import Tensor, nn

from fxcache.runtime.session import Session
from fxcache.runtime.trajectory.position import Place

MARK = "__fxcache_call__"
# Base classes of pipelines. They are found by name, because diffusers is optional.
PIPELINES = {"DiffusionPipeline", "ModularPipeline"}


class Schedule:
    """The noise schedule of a pipeline's call.

    It tells the place of each call, the place at which the calls of a denoiser end, and whether the
    user interrupted the pipeline.

    Args:
        scheduler: The pipeline's noise scheduler, or None.
        pipeline: The pipeline, or None.
    """

    def __init__(self, scheduler: Any, pipeline: Any = None):
        self.scheduler, self.pipeline = scheduler, pipeline
        # By the id of a module: the timesteps, and the place at which its calls end.
        self._ends: dict[int, tuple[Tensor, int | None]] = {}

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """Return the schedule of a call of ``pipeline``."""
        return cls(getattr(pipeline, "scheduler", None), pipeline)

    @property
    def timesteps(self) -> Tensor | None:
        """The timesteps of the noise scheduler; None if it has none."""
        timesteps = getattr(self.scheduler, "timesteps", None)
        return timesteps if isinstance(timesteps, Tensor) else None

    def place(self) -> Place | None:
        """Return the noise scheduler's place; None if the scheduler does not count its steps."""
        timesteps = self.timesteps
        if timesteps is None or not hasattr(self.scheduler, "step_index"):
            return None
        index, first = self.scheduler.step_index, getattr(self.scheduler, "begin_index", None) or 0
        if index is None:  # before the first step
            index = first
        length, steps = len(timesteps), getattr(self.pipeline, "num_timesteps", None)
        if isinstance(steps, int) and index < first + steps < length:
            length = first + steps
        return Place(int(index), length)

    def end(self, module: nn.Module) -> int | None:
        """Return the place at which the calls of ``module`` end; None for that of the schedule.

        The timesteps are read from their device once a run, and only if the calls end before.
        """
        timesteps = self.timesteps
        if timesteps is None:
            return None
        known = self._ends.get(id(module))
        if known is None or known[0] is not timesteps:
            least = least_timestep(self.pipeline, self.scheduler, module)
            end = None if least is None else int((timesteps >= least).sum())
            known = self._ends[id(module)] = timesteps, end
        return known[1]

    def interrupted(self) -> bool:
        """Return whether the user interrupted the pipeline, in diffusers' way."""
        return getattr(self.pipeline, "_interrupt", False) is True


def least_timestep(pipeline: Any, scheduler: Any, module: nn.Module) -> float | None:
    """Return the timestep below which ``pipeline`` does not call ``module``.

    None if it calls the module down to the last one. In diffusers, a pipeline with two denoisers
    has the noise level at which the second one takes over, and a pipeline that leaves the last
    steps to another one has the share of the steps that it makes.
    """
    levels = getattr(getattr(scheduler, "config", None), "num_train_timesteps", None)
    if not isinstance(levels, int):
        return None
    level = getattr(getattr(pipeline, "config", None), "boundary_ratio", None)
    first, second = (getattr(pipeline, name, None) for name in ("transformer", "transformer_2"))
    if level is not None and isinstance(first, nn.Module) and second is not None:
        return level * levels if any(part is module for part in first.modules()) else None
    share = getattr(pipeline, "_denoising_end", None)
    if isinstance(share, float) and 0 < share < 1:
        return round(levels - share * levels)
    return None


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
