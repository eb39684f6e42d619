"""The step of a call in its run: a pure function of the state before and of the call."""

from typing import NamedTuple

from fxcache.runtime.trajectory.attribution import Certainty
from fxcache.runtime.trajectory.position import (
    PLACES,
    Motion,
    Position,
    direction_of,
    motion,
)
from fxcache.runtime.trajectory.tensor_ref import Match


class State(NamedTuple):
    """The state of a trajectory.

    Attributes:
        position: The position of its last call.
        step: The index of its last call, from 0.
        direction: 1 if its timesteps rise, -1 if they fall, 0 if unknown.
        stride: The number of places in the schedule that its last step advanced by.
        complete: Whether its last call finished without an exception.
    """

    position: Position
    step: int = 0
    direction: int = 0
    stride: int = 1
    complete: bool = True


class Event(NamedTuple):
    """A call of a trajectory.

    Attributes:
        position: The position of the call.
        conditioning: How the prompts compare with those of the last call.
        certainty: The certainty that the call belongs to this trajectory.
        reason: Why the call refreshes, if it is ambiguous.
    """

    position: Position
    conditioning: Match = Match.SAME
    certainty: Certainty = Certainty.CERTAIN
    reason: str = ""


class Transition(NamedTuple):
    """The state after a call.

    Attributes:
        state: The new state of the trajectory.
        refresh: Why the call must refresh; empty if it may reuse.
        repeats: Whether the call has the same timestep as the last one.
    """

    state: State
    refresh: str = ""
    repeats: bool = False


def begin(position: Position, reason: str) -> Transition:
    """Return the transition of the first call of a trajectory, which refreshes."""
    return Transition(State(position), reason)


def advance(state: State, event: Event) -> Transition:
    """Return the transition of a further call of a trajectory."""
    moved = motion(state.position, event.position, state.direction)
    stride = max(1, offset_of(event.position) - offset_of(state.position))
    direction = state.direction or direction_of(state.position, event.position)
    following = State(event.position, state.step + 1, direction, stride)
    refresh = why_refresh(state, event, moved, stride)
    return Transition(following, refresh, moved is Motion.REPEAT)


def step_on(state: State, position: Position) -> Transition | None:
    """A fast path of ``advance`` for the next place in the schedule; None for any other call.

    Nearly all calls are such steps. The result is that of ``advance`` if nothing else changed.
    """
    if not state.complete or not isinstance(position, PLACES):
        return None
    if motion(state.position, position, state.direction) is not Motion.NEXT:
        return None
    return Transition(State(position, state.step + 1, state.direction))


def why_refresh(state: State, event: Event, moved: Motion, stride: int) -> str:
    """Return why the call may not reuse cached values; empty if it may."""
    if not state.complete:
        return "the last call did not finish"
    if event.certainty is Certainty.AMBIGUOUS:
        return event.reason
    if event.conditioning is Match.REWRITTEN:
        return "conditioning was written in place"
    if event.conditioning >= Match.REPLACED:
        return "conditioning changed"
    if moved is Motion.SKIP and stride > state.stride:
        return moved.value
    return ""


def offset_of(position: Position) -> int:
    """Return the place in the schedule; 0 if there is none."""
    return position.offset if isinstance(position, PLACES) else 0


def length_of(position: Position) -> int | None:
    """Return the number of places in the schedule; None if it is unknown."""
    return position.length if isinstance(position, PLACES) else None


def expected_steps(state: State, end: int | None = None) -> int | None:
    """The number of calls if the run continues to ``end``; None if unknown.

    Args:
        state: The state of the run.
        end: A place in the schedule; None for the end of the schedule.
    """
    length = length_of(state.position)
    if length is None:
        return None
    left = (length if end is None else end) - offset_of(state.position)
    return state.step + -(-left // state.stride)


def ended(state: State) -> bool:
    """Return whether the schedule has no further step."""
    length = length_of(state.position)
    return length is not None and offset_of(state.position) >= length - 1
