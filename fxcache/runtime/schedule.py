"""The place of a pipeline's run in its schedule: by its noise scheduler, or by its loop.

Some models take no timestep, such as those that fill in hidden tokens, and their noise schedulers
do not count steps. The pipeline's loop goes through the timesteps of the scheduler all the same:
``for t in scheduler.timesteps``. So the local variable ``t`` tells the place. It is recognised by
its memory, which is that of the scheduler's timesteps.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from fxcache._torch import same_memory
from fxcache.runtime.trajectory.position import Element, Place, element_of

MARK = "__fxcache_call__"  # the local variable that fxcache adds to a pipeline's call


@dataclass(frozen=True)
class Schedule:
    """The noise scheduler of a pipeline, or None. It tells the place of a call."""

    scheduler: Any

    def place(self) -> Place | None:
        """Return the noise scheduler's place; None if the scheduler does not count its steps."""
        timesteps = getattr(self.scheduler, "timesteps", None)
        if not isinstance(timesteps, Tensor) or not hasattr(self.scheduler, "step_index"):
            return None
        index = self.scheduler.step_index
        if index is None:  # before the first step
            index = getattr(self.scheduler, "begin_index", None) or 0
        return Place(int(index), len(timesteps))

    def loop_place(self) -> Place | None:
        """Return the place of the loop in the innermost call of a pipeline with this scheduler.

        None if there is no such call on the stack, or if its local variables are not exactly one
        element of the schedule.
        """
        timesteps = getattr(self.scheduler, "timesteps", None)
        if not isinstance(timesteps, Tensor):
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
