"""How many calls runs make: what the last run of a schedule made, rather than all that it holds."""

from collections.abc import Iterable
from threading import Lock
from typing import Any

from fxcache.runtime.trajectory.position import Element, Number, Place, Position
from fxcache.runtime.trajectory.state import State, expected_steps, offset_of

MAX_SCHEDULES = 256
Schedule = tuple[Any, ...]  # what tells schedules apart


class RunLengths:
    """The number of calls of the last run of each schedule.

    A model may serve a part of a schedule (the first of two experts, a run that stops before its
    end), and numbers do not tell how many will follow. The next run of the same schedule goes as
    the last one did.
    """

    def __init__(self) -> None:
        self._calls: dict[Schedule, int] = {}
        self._fixed: dict[Schedule, int] = {}  # from a plan, which was calibrated on it
        self._lock = Lock()

    def note(self, state: State, schedule: Schedule | None) -> None:
        """A run of ``schedule`` has ended in ``state``."""
        if not state.complete or schedule is None:
            return
        with self._lock:
            if len(self._calls) >= MAX_SCHEDULES:
                self._calls.clear()
            self._calls[schedule] = state.step + 1

    def fix(self, lengths: Iterable[tuple[int, int, int]]) -> None:
        """Runs of these schedules have so many calls.

        Args:
            lengths: Of each schedule, its length, the place where a run begins, and the calls.
        """
        self._fixed = {("places", length, first): calls for length, first, calls in lengths}

    def expected(self, state: State, schedule: Schedule | None) -> int | None:
        """How many calls the run of ``schedule`` in ``state`` will make; None if nothing tells."""
        known = None
        if schedule is not None:
            known = self._fixed.get(schedule) or self._calls.get(schedule)
        if known is not None and state.step < known:
            return known
        return expected_steps(state)

    def places(self) -> list[tuple[int, int, int]]:
        """What was noted of schedules with places, as ``fix`` takes it."""
        with self._lock:
            noted = list(self._calls.items())
        return [(key[1], key[2], calls) for key, calls in noted if key[0] == "places"]


def schedule_of(first: Position) -> Schedule | None:
    """What tells schedules apart, by where a run begins; None where nothing does."""
    match first:
        case Element(length=int(length)) | Place(length=int(length)):
            return "places", length, offset_of(first)
        case Number(value=value):
            return "numbers", value
    return None
