"""Which step of its run a call is: a pure function of the state before and of the call."""

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
    """Where a trajectory stands.

    Attributes:
        position: Of its last call.
        step: The number of its last call, from 0.
        direction: 1 if its numbers rise, -1 if they fall, 0 if that is not known yet.
        stride: How many places of the schedule its last step went on by.
        complete: Whether its last call ran to its end.
    """

    position: Position
    step: int = 0
    direction: int = 0
    stride: int = 1
    complete: bool = True


class Event(NamedTuple):
    """A call of a trajectory.

    Attributes:
        position: Where it stands.
        conditioning: How alike the prompts are to the last call's.
        certainty: How sure it is that the call is this trajectory's.
        reason: Why it refreshes, if it is unsure.
    """

    position: Position
    conditioning: Match = Match.SAME
    certainty: Certainty = Certainty.CERTAIN
    reason: str = ""


class Transition(NamedTuple):
    """The state after a call.

    Attributes:
        state: Where the trajectory stands now.
        refresh: Why the call must refresh; empty if it may reuse.
        repeats: Whether it is at the same timestep as the last one.
    """

    state: State
    refresh: str = ""
    repeats: bool = False


def begin(position: Position, reason: str) -> Transition:
    """A new trajectory, whose first call refreshes."""
    return Transition(State(position), reason)


def advance(state: State, event: Event) -> Transition:
    """The next call of a trajectory."""
    moved = motion(state.position, event.position, state.direction)
    stride = max(1, offset_of(event.position) - offset_of(state.position))
    direction = state.direction or direction_of(state.position, event.position)
    following = State(event.position, state.step + 1, direction, stride)
    refresh = why_refresh(state, event, moved, stride)
    return Transition(following, refresh, moved is Motion.REPEAT)


def step_on(state: State, position: Position) -> Transition | None:
    """The transition to the next place in the schedule; None where the call is another step.

    ``advance`` gives the same where nothing else changed, which costs more. Nearly all calls are
    such steps.
    """
    if not state.complete or not isinstance(position, PLACES):
        return None
    if motion(state.position, position, state.direction) is not Motion.NEXT:
        return None
    return Transition(State(position, state.step + 1, state.direction))


def why_refresh(state: State, event: Event, moved: Motion, stride: int) -> str:
    """Why the values cached before may not be used at this call."""
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
    """The place in the schedule; 0 where there is none."""
    return position.offset if isinstance(position, PLACES) else 0


def length_of(position: Position) -> int | None:
    """How many places the schedule has; None where nothing tells."""
    return position.length if isinstance(position, PLACES) else None


def expected_steps(state: State) -> int | None:
    """How many calls the run makes if it goes on to the schedule's end; None if that is unknown."""
    length = length_of(state.position)
    if length is None:
        return None
    left = length - offset_of(state.position)
    return state.step + -(-left // state.stride)


def ended(state: State) -> bool:
    """Whether the schedule has no step after this one."""
    length = length_of(state.position)
    return length is not None and offset_of(state.position) >= length - 1
