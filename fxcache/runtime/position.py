"""Where in its run a call stands, told from the timestep it was given."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from fxcache._torch import schedule_tensor


@dataclass(frozen=True)
class Element:
    """The timestep is an element of the noise scheduler's timesteps tensor, as in diffusers.

    That tensor is new in every run (``set_timesteps`` makes it), so it identifies the run, and
    the offset is the position in it: nothing is looked up by value, nothing read from a device.
    """

    schedule: Callable[[], Tensor | None]
    offset: int
    length: int

    def same_schedule(self, other: "Element") -> bool | None:
        """Whether both are elements of one tensor; None if this one's tensor is gone."""
        mine, theirs = self.schedule(), other.schedule()
        if mine is None or theirs is None:
            return None
        return mine is theirs or address(mine) == address(theirs)


@dataclass(frozen=True)
class Number:
    """The timestep is a value of its own, which costs nothing to read."""

    value: float


@dataclass(frozen=True)
class Unknown:
    """No timestep, or one whose value only a device sync would tell."""


Position = Element | Number | Unknown


def position_of(timestep: Any) -> Position:
    """The position that ``timestep``, as the caller passed it, stands for."""
    if isinstance(timestep, Tensor):
        return element_of(timestep) or number_of(timestep)
    return Number(float(timestep)) if isinstance(timestep, Real) else Unknown()


def element_of(timestep: Tensor) -> Element | None:
    """The element that ``timestep`` is a view of, batch-expanded or not; None if it is no view."""
    if timestep.numel() != 1 and any(timestep.stride()):
        return None
    base = schedule_tensor(timestep)
    if base is not None and base.numel() > 1:
        offset = int(timestep.storage_offset() - base.storage_offset())
        return Element(weakref.ref(base), offset, base.numel())
    length = timestep.untyped_storage().nbytes() // timestep.element_size()
    if base is None and length > timestep.numel():
        # A view made in inference mode, which keeps no link: hold the storage itself.
        return Element(lambda: timestep, int(timestep.storage_offset()), length)
    return None


def number_of(timestep: Tensor) -> Position:
    if timestep.device.type == "cpu" and timestep.numel():
        return Number(float(timestep.reshape(-1)[0]))
    return Unknown()


def address(tensor: Tensor) -> int:
    """Address of the memory that ``tensor`` lives in; unique while the tensor is alive."""
    return tensor.untyped_storage().data_ptr()
