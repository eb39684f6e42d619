"""Counts the calls that requests shared."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """What a batcher did so far.

    Attributes:
        steps: The steps that succeeded.
        calls: The calls of graphs that they took, without prefixes.
        refreshes: How many of the calls refreshed.
        rows: The rows of all calls, without padding.
        rounds: How often waiting steps were grouped.
    """

    steps: int = 0
    calls: int = 0
    refreshes: int = 0
    rows: int = 0
    rounds: int = 0

    @property
    def mean_batch(self) -> float:
        """The rows of a call on average; 0 without calls."""
        return self.rows / self.calls if self.calls else 0.0


class Counts:
    """Mutable statistics, which several threads may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = self._calls = self._refreshes = self._rows = self._rounds = 0

    def add_step(self) -> None:
        """Count a step that succeeded."""
        with self._lock:
            self._steps += 1

    def add(self, rows: int, refresh: bool) -> None:
        """Count one call."""
        with self._lock:
            self._calls += 1
            self._refreshes += refresh
            self._rows += rows

    def add_round(self) -> None:
        """Count one round."""
        with self._lock:
            self._rounds += 1

    def read(self) -> Statistics:
        """Return the statistics now."""
        with self._lock:
            counts = self._steps, self._calls, self._refreshes, self._rows, self._rounds
        return Statistics(*counts)
