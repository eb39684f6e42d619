"""What replicas report to Prometheus, through Ray's metrics.

Ray adds the prefix ``ray_`` to each name, and tags for the application, the deployment and the
replica.
"""

import logging
import threading
from collections.abc import Callable

from ray.serve.metrics import Counter, Gauge, Histogram

from fxcache.serving import Statistics

INTERVAL = 1.0  # seconds between two reports of a replica
SECONDS = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0]
TOTALS = {
    "steps": "denoising steps that succeeded",
    "refreshes": "calls that computed everything",
    "rounds": "how often waiting steps were grouped",
}
LEVELS = {
    "open_requests": "runs of the denoiser that have begun and not ended",
    "waiting_steps": "steps that wait for their call",
    "cached_bytes": "bytes of cached values",
}


class ReplicaMetrics:
    """The metrics of one replica.

    Args:
        read: Returns the statistics now.
    """

    def __init__(self, read: Callable[[], Statistics]) -> None:
        self._read, self._last = read, Statistics()
        self._totals = {name: Counter(f"fxcache_{name}", text) for name, text in TOTALS.items()}
        self._calls = Counter("fxcache_calls", "calls of graphs, by their rows", tag_keys=("rows",))
        self._levels = {name: Gauge(f"fxcache_{name}", text) for name, text in LEVELS.items()}

    def report_in_thread(self) -> None:
        """Report at every interval, until the process ends."""
        threading.Thread(target=self._report_forever, name="fxcache-metrics", daemon=True).start()

    def _report_forever(self) -> None:
        never = threading.Event()
        while not never.wait(INTERVAL):
            try:
                self.report()
            except Exception:
                logging.getLogger(__name__).exception("the metrics were not reported")

    def report(self) -> None:
        """Report what changed since the last report."""
        now, last = self._read(), self._last
        for name, counter in self._totals.items():
            if more := getattr(now, name) - getattr(last, name):
                counter.inc(more)
        for rows, calls in now.batches.items():
            if more := calls - last.batches.get(rows, 0):
                self._calls.inc(more, tags={"rows": str(rows)})
        for name, gauge in self._levels.items():
            gauge.set(getattr(now, name))
        self._last = now


class RequestMetrics:
    """The metrics of all requests."""

    def __init__(self) -> None:
        self._requests = Counter(
            "fxcache_requests", "requests for pictures, by HTTP status", tag_keys=("status",)
        )
        self._seconds = Histogram(
            "fxcache_request_seconds", "seconds of requests that succeeded", boundaries=SECONDS
        )
        self._ongoing = Gauge(
            "fxcache_ongoing_requests", "requests that have begun and not ended, queued ones too"
        )

    def set_ongoing(self, ongoing: int) -> None:
        """Record the number of requests that have begun and not ended."""
        self._ongoing.set(ongoing)

    def add(self, status: int, seconds: float) -> None:
        """Record a request that ended."""
        self._requests.inc(1, tags={"status": str(status)})
        if status == 200:
            self._seconds.observe(seconds)


def fxcache_lines(exposition: str) -> str:
    """Return the lines of a Prometheus exposition that are about fxcache."""
    lines = exposition.splitlines()
    return "".join(f"{line}\n" for line in lines if "ray_fxcache_" in line)
