"""Where in its run a call stands, told from the timestep it was given."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
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
class Place:
    """The pipeline says which step it is at, out of how many."""

    offset: int
    length: int | None


@dataclass(frozen=True)
class Number:
    """The timestep is a value of its own.

    ``waited``: reading it waited for its device. ``uniform``: it is the same for the whole batch.
    """

    value: float
    waited: bool = field(default=False, compare=False)
    uniform: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Unknown:
    """No timestep, or one that is not read, since the caller vouches for its order."""


Position = Element | Place | Number | Unknown


def position_of(timestep: Any, told: Place | None = None, may_wait: bool = True) -> Position:
    """The position that ``timestep``, as the caller passed it, stands for.

    ``told``: what the pipeline said, for timesteps that do not tell themselves. ``may_wait``:
    whether a value on another device may be read where nothing else tells.
    """
    element = element_of(timestep) if isinstance(timestep, Tensor) else None
    if element or told:
        return element or told or Unknown()
    if isinstance(timestep, Tensor):
        return number_of(timestep, may_wait)
    return Number(float(timestep)) if isinstance(timestep, Real) else Unknown()


def element_of(timestep: Tensor) -> Element | None:
    """The element that ``timestep`` is a view of, batch-expanded or not; None if it is no view."""
    if timestep.numel() != 1 and any(timestep.stride()):
        return None
    base = schedule_tensor(timestep)
    if base is not None and base.numel() > 1:
        offset = int(timestep.storage_offset() - base.storage_offset())
        offset //= base.stride(-1) or 1
        return Element(weakref.ref(base), offset, base.numel())
    length = timestep.untyped_storage().nbytes() // timestep.element_size()
    if base is None and length > timestep.numel():
        # A view made in inference mode, which keeps no link: hold the storage itself.
        return Element(lambda: timestep, int(timestep.storage_offset()), length)
    return None


def number_of(timestep: Tensor, may_wait: bool) -> Position:
    """The largest of a timestep's elements: a token that is given, not denoised, has 0."""
    waits = timestep.device.type != "cpu"
    if timestep.is_meta or not timestep.numel() or (waits and not may_wait):
        return Unknown()
    least, greatest = torch.stack(torch.aminmax(timestep)).tolist()  # one copy from the device
    return Number(float(greatest), waits, bool(least == greatest))


def address(tensor: Tensor) -> int:
    """Address of the memory that ``tensor`` lives in; unique while the tensor is alive."""
    return tensor.untyped_storage().data_ptr()
