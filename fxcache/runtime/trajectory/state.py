"""Which step of its run a call is: a pure function of the state before and of the call."""

from dataclasses import dataclass, replace

from fxcache.runtime.trajectory.attribution import Certainty
from fxcache.runtime.trajectory.position import (
    Element,
    Motion,
    Place,
    Position,
    direction_of,
    motion,
)
from fxcache.runtime.trajectory.tensor_ref import Match


@dataclass(frozen=True)
class State:
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


@dataclass(frozen=True)
class Event:
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


@dataclass(frozen=True)
class Transition:
    """The state after a call, and why the call must refresh; empty if it may reuse."""

    state: State
    refresh: str = ""


def begin(position: Position, reason: str) -> Transition:
    """A new trajectory, whose first call refreshes."""
    return Transition(State(position), reason)


def advance(state: State, event: Event) -> Transition:
    """The next call of a trajectory."""
    moved = motion(state.position, event.position, state.direction)
    stride = max(1, offset_of(event.position) - offset_of(state.position))
    following = replace(
        state,
        position=event.position,
        step=state.step + 1,
        direction=state.direction or direction_of(state.position, event.position),
        stride=stride,
        complete=True,
    )
    return Transition(following, why_refresh(state, event, moved, stride))


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
    return position.offset if isinstance(position, Element | Place) else 0


def length_of(position: Position) -> int | None:
    """How many places the schedule has; None where nothing tells."""
    return position.length if isinstance(position, Element | Place) else None


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
