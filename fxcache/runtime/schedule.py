"""The place of a pipeline's run in its schedule, and where the calls of a denoiser end.

The noise scheduler tells the place, or the pipeline's loop. Some models take no timestep, such as
those that fill in hidden tokens, and their noise schedulers do not count steps. The pipeline's loop
goes through the timesteps of the scheduler all the same: ``for t in scheduler.timesteps``. So the
local variable ``t`` tells the place. It is recognised by its memory, which is that of the
scheduler's timesteps.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, Self

from torch import Tensor, nn

from fxcache._torch import same_memory
from fxcache.runtime.trajectory.position import Element, Place, element_of

MARK = "__fxcache_call__"  # the local variable that fxcache adds to a pipeline's call


class Schedule:
    """The noise schedule of a pipeline's call.

    It tells the place of each call, the place at which the calls of a denoiser end, and whether the
    user interrupted the pipeline. The length of a place is that of the pipeline's loop: a policy
    with a table for the whole loop compares it. One of two denoisers may end before.

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

    def loop_place(self) -> Place | None:
        """Return the place of the loop in the innermost call of a pipeline with this scheduler.

        None if there is no such call on the stack, or if its local variables are not exactly one
        element of the schedule.
        """
        timesteps = self.timesteps
        if timesteps is None:
            return None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name == "__call__" and frame.f_code.co_argcount:
                variables = frame.f_locals
                owner = variables.get(frame.f_code.co_varnames[0])
                found = elements_in(variables, timesteps)
                forget_copies(variables)
                if getattr(owner, "scheduler", None) is self.scheduler:
                    return found.pop() if len(found) == 1 else None
            frame = frame.f_back
        return None


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


def elements_in(variables: Mapping[str, Any], timesteps: Tensor) -> set[Place]:
    """Return the places of the local variables that are elements of ``timesteps``."""
    scalars = (v for v in variables.values() if isinstance(v, Tensor) and v.dim() == 0)
    elements = (element_of(v) for v in scalars if same_memory(v, timesteps))
    return {Place(e.offset, e.length) for e in elements if isinstance(e, Element)}


def forget_copies(variables: Any) -> None:
    """Delete all but the mark from the local variables of a running call.

    Before Python 3.13, reading ``f_locals`` makes a dict that lives as long as the frame, with a
    copy of every local variable. It would keep tensors alive. Later, ``f_locals`` is a view.
    """
    if isinstance(variables, dict):
        for name in [name for name in variables if name != MARK]:
            del variables[name]
