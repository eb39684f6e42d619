"""Counts the calls that requests shared."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Statistics:
    """What a batcher did so far, and what it holds now.

    Attributes:
        steps: The steps that succeeded.
        refreshes: How many of the calls refreshed.
        rounds: How often waiting steps were grouped.
        batches: The number of calls of graphs, without prefixes, by their rows without padding.
        open_requests: The requests that are not closed.
        waiting_steps: The steps that wait for their call.
        cached_bytes: The bytes of the cached values of open requests.
    """

    steps: int = 0
    refreshes: int = 0
    rounds: int = 0
    batches: Mapping[int, int] = field(default_factory=dict)
    open_requests: int = 0
    waiting_steps: int = 0
    cached_bytes: int = 0

    @property
    def calls(self) -> int:
        """The calls of graphs, without prefixes."""
        return sum(self.batches.values())

    @property
    def rows(self) -> int:
        """The rows of all calls, without padding."""
        return sum(rows * calls for rows, calls in self.batches.items())

    @property
    def mean_batch(self) -> float:
        """The rows of a call on average; 0 without calls."""
        return self.rows / self.calls if self.calls else 0.0


class Counts:
    """Mutable counts, which several threads may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = self._refreshes = self._rounds = 0
        self._batches: Counter[int] = Counter()

    def add_step(self) -> None:
        """Count a step that succeeded."""
        with self._lock:
            self._steps += 1

    def add(self, rows: int, refresh: bool) -> None:
        """Count one call."""
        with self._lock:
            self._batches[rows] += 1
            self._refreshes += refresh

    def add_round(self) -> None:
        """Count one round."""
        with self._lock:
            self._rounds += 1

    def read(self, open_requests: int, waiting_steps: int, cached_bytes: int) -> Statistics:
        """Return the statistics now, with what the batcher holds."""
        with self._lock:
            counts = self._steps, self._refreshes, self._rounds, dict(self._batches)
        return Statistics(*counts, open_requests, waiting_steps, cached_bytes)
