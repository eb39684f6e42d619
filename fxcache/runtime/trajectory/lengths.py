"""The number of calls of a run, taken from the last run with the same schedule."""

from collections.abc import Iterable
from threading import Lock
from typing import Any

from fxcache.runtime.trajectory.position import Element, Number, Place, Position
from fxcache.runtime.trajectory.state import State, expected_steps, offset_of

MAX_SCHEDULES = 256
Schedule = tuple[Any, ...]  # a key that identifies a schedule


class RunLengths:
    """The number of calls of the last run of each schedule.

    A model may run for only a part of a schedule, as the first of two experts does. Timesteps that
    are plain numbers do not tell how many follow. So a run is expected to make as many calls as
    the last run with the same schedule.
    """

    def __init__(self) -> None:
        self._calls: dict[Schedule, int] = {}
        self._fixed: dict[Schedule, int] = {}  # from a plan
        self._lock = Lock()

    def record(self, state: State, schedule: Schedule | None) -> None:
        """Record that a run of ``schedule`` has ended in ``state``."""
        if not state.complete or schedule is None:
            return
        with self._lock:
            if len(self._calls) >= MAX_SCHEDULES:
                self._calls.clear()
            self._calls[schedule] = state.step + 1

    def fix(self, lengths: Iterable[tuple[int, int, int]]) -> None:
        """Fix the number of calls of some schedules.

        Args:
            lengths: For each schedule: its length, the place at which a run begins, and the number
                of calls.
        """
        self._fixed = {("places", length, first): calls for length, first, calls in lengths}

    def expected(
        self, state: State, schedule: Schedule | None, end: int | None = None
    ) -> int | None:
        """The expected number of calls of a run that is in ``state``; None if it is unknown.

        Args:
            state: The state of the run.
            schedule: The key of its schedule; None if there is none.
            end: The place in the schedule at which its calls end; None if unknown.
        """
        known = None
        if schedule is not None:
            told = None if end is None else expected_steps(state, end)
            known = self._fixed.get(schedule) or told or self._calls.get(schedule)
        if known is not None and state.step < known:
            return known
        return expected_steps(state)

    def places(self) -> list[tuple[int, int, int]]:
        """Return the recorded lengths of schedules with places, in the form that ``fix`` takes."""
        with self._lock:
            recorded = list(self._calls.items())
        return [(key[1], key[2], calls) for key, calls in recorded if key[0] == "places"]


def schedule_of(first: Position) -> Schedule | None:
    """The key of the schedule of a run that begins at ``first``; None if there is no schedule."""
    match first:
        case Element(length=int(length)) | Place(length=int(length)):
            return "places", length, offset_of(first)
        case Number(value=value):
            return "numbers", value
    return None
