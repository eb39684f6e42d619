"""The position of a call in its run, read from its timestep or from its pipeline."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import schedule_tensor
from fxcache.runtime.record import is_asynchronous


class Element(NamedTuple):
    """The timestep is an element of the noise scheduler's timesteps tensor, as in diffusers.

    ``set_timesteps`` creates that tensor for every run, so the tensor identifies the run. The
    position is the offset of the element. No value is looked up, and no device is read.

    Attributes:
        schedule: Returns the timesteps tensor; None if it no longer exists.
        offset: The offset of the element.
        length: The number of elements in the tensor.
    """

    schedule: Callable[[], Tensor | None]
    offset: int
    length: int

    def same_schedule(self, other: "Element") -> bool | None:
        """Return whether both are elements of one tensor; None if a tensor no longer exists."""
        mine, theirs = self.schedule(), other.schedule()
        if mine is None or theirs is None:
            return None
        return mine is theirs or address(mine) == address(theirs)


class Place(NamedTuple):
    """The pipeline announces its step.

    Attributes:
        offset: The index of the step.
        length: The number of steps; None if it is unknown.
    """

    offset: int
    length: int | None


@dataclass(frozen=True)
class Number:
    """The timestep is a plain value, not an element of a schedule.

    Attributes:
        value: The largest element.
        waited: Whether the host waited for the device to read it.
        uniform: Whether the whole batch has this value.
    """

    value: float
    waited: bool = field(default=False, compare=False)
    uniform: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Unknown:
    """There is no timestep, or it cannot be read."""


Position = Element | Place | Number | Unknown
PLACES = (Element, Place)  # the positions that are places in a schedule


class Motion(Enum):
    """How a position follows another one of the same trajectory."""

    NEXT = "the next step"
    SKIP = "timesteps are left out"
    REPEAT = "the timestep repeats"
    BACK = "timesteps start over"
    UNKNOWN = "the timestep tells nothing"
    OTHER = "another schedule"


def position_of(timestep: Any, place: Place | None = None) -> Position:
    """Return the position of a call.

    Args:
        timestep: The timestep as the caller passed it: a tensor of any shape, a number, or None.
        place: The place that the pipeline announces. It is used if the timestep is not an element
            of a schedule. If it is the same place as the element, the shorter length holds: the
            loop of the pipeline may leave out the last timesteps.
    """
    element = element_of(timestep) if isinstance(timestep, Tensor) else None
    if element and place and place.length and element.offset == place.offset:
        element = element._replace(length=min(element.length, place.length))
    if element or place:
        return element or place or Unknown()
    if isinstance(timestep, Tensor):
        return number_of(timestep)
    return Number(float(timestep)) if isinstance(timestep, Real) else Unknown()


def element_of(timestep: Tensor) -> Element | None:
    """The element that ``timestep`` is a view of, perhaps expanded; None if it is not a view."""
    if timestep.numel() != 1 and any(timestep.stride()):
        return None
    base = schedule_tensor(timestep)
    if base is not None and base.numel() > 1:
        offset = int(timestep.storage_offset() - base.storage_offset())
        offset //= base.stride(-1) or 1
        return Element(weakref.ref(base), offset, base.numel())
    length = timestep.untyped_storage().nbytes() // timestep.element_size()
    if base is None and length > timestep.numel():
        # In inference mode a view has no reference to its base: keep the view alive instead.
        return Element(lambda: timestep, int(timestep.storage_offset()), length)
    return None


def number_of(timestep: Tensor) -> Position:
    """Return the largest element of a timestep. Tokens that are not denoised have timestep 0."""
    if timestep.is_meta or not timestep.numel():
        return Unknown()
    least, greatest = torch.stack(torch.aminmax(timestep)).tolist()  # reads the device once
    return Number(float(greatest), is_asynchronous(timestep.device), bool(least == greatest))


def address(tensor: Tensor) -> int:
    """Return the address of the memory of ``tensor``, which is unique while the tensor is alive."""
    return tensor.untyped_storage().data_ptr()


def motion(last: Position, now: Position, direction: int) -> Motion:
    """Return how ``now`` follows ``last``.

    Args:
        last: The position of the trajectory's last call.
        now: The position of the new call.
        direction: 1 if the timesteps of the trajectory rise, -1 if they fall, 0 if unknown.
    """
    match last, now:
        case (Element(), Element()):
            return between(last, now) if last.same_schedule(now) else Motion.OTHER
        case (Place(), Place()):
            return between(last, now)
        case (Number(), Number()):
            return between_numbers(last, now, direction)
        case (Unknown(), Unknown()):
            return Motion.UNKNOWN
    return Motion.OTHER


def between(last: Element | Place, now: Element | Place) -> Motion:
    """Return the motion between two places of one schedule."""
    stride = now.offset - last.offset
    if stride < 0:
        return Motion.BACK
    return (Motion.REPEAT, Motion.NEXT)[stride] if stride < 2 else Motion.SKIP


def between_numbers(last: Number, now: Number, direction: int) -> Motion:
    """Return the motion between two numbers, which fall during a run, or rise (flow matching)."""
    found = direction_of(last, now)
    if not found:
        return Motion.REPEAT
    return Motion.NEXT if direction in (0, found) else Motion.BACK


def direction_of(last: Position, now: Position) -> int:
    """1 if the number rises from ``last`` to ``now``, -1 if it falls, 0 for other positions."""
    if not isinstance(last, Number) or not isinstance(now, Number):
        return 0
    return (now.value > last.value) - (now.value < last.value)
