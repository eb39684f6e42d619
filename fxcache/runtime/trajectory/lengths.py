"""How many calls runs make: what the last run of a schedule made, rather than all that it holds."""

from collections.abc import Hashable
from threading import Lock

from fxcache.runtime.trajectory.position import Element, Number, Place, Position
from fxcache.runtime.trajectory.state import State, expected_steps, offset_of

MAX_SCHEDULES = 256


class RunLengths:
    """The number of calls of the last run of each schedule.

    A model may serve a part of a schedule (the first of two experts, a run that stops before its
    end), and numbers do not tell how many will follow. The next run of the same schedule goes as
    the last one did.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, int] = {}
        self._fixed: dict[Hashable, int] = {}  # from a plan, which was calibrated on it
        self._lock = Lock()

    def note(self, state: State, first: Position) -> None:
        """A run has ended in ``state``; it began at ``first``."""
        if not state.complete or (key := schedule_of(first)) is None:
            return
        with self._lock:
            if len(self._calls) >= MAX_SCHEDULES:
                self._calls.clear()
            self._calls[key] = state.step + 1

    def fix(self, lengths: dict[tuple[int, int], int]) -> None:
        """Runs of these schedules have so many calls.

        Args:
            lengths: By the schedule's length and the place where a run begins.
        """
        self._fixed = {("places", *key): calls for key, calls in lengths.items()}

    def expected(self, state: State, first: Position) -> int | None:
        """How many calls the run in ``state`` will make; None if nothing tells."""
        key = schedule_of(first)
        known = self._fixed.get(key) or self._calls.get(key)
        if known is not None and state.step < known:
            return known
        return expected_steps(state)

    def places(self) -> dict[tuple[int, int], int]:
        """What was noted of schedules with places, as ``fix`` takes it."""
        items = list(self._calls.items())
        return {key[1:]: calls for key, calls in items if key[0] == "places"}  # type: ignore[index]


def schedule_of(first: Position) -> Hashable:
    """What tells schedules apart, by where a run begins; None where nothing does."""
    match first:
        case Element(length=int(length)) | Place(length=int(length)):
            return "places", length, offset_of(first)
        case Number(value=value):
            return "numbers", value
    return None
