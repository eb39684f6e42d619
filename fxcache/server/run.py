"""Starts the server, and ends it without losing a request."""

import asyncio
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from fxcache.errors import StateError
from fxcache.server.config import ServerConfig
from fxcache.server.ingress import APP, REPLICAS, Ingress
from fxcache.server.metrics import ReplicaMetrics
from fxcache.server.painter import Drawn, Painter, Wish

POLL = 0.2  # seconds between two looks at what is still being served


class Replica(Painter):
    """A painter that reports its metrics."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self._reports: asyncio.Task[None] | None = None

    async def draw(self, wish: Wish) -> Drawn:
        """Draw a picture, see ``Painter.draw``."""
        if self._reports is None:
            metrics = ReplicaMetrics(lambda: self.statistics)
            self._reports = asyncio.create_task(metrics.report_forever())
        return await super().draw(wish)


def application(config: ServerConfig) -> serve.Application:
    """Return the application of Ray Serve: one ingress, and replicas that draw."""
    gpus = 1 if config.device.startswith("cuda") else 0
    deployed: Any = serve.deployment(
        name=REPLICAS,
        num_replicas=config.replicas,
        max_ongoing_requests=config.max_ongoing,
        max_queued_requests=config.max_queued,
        graceful_shutdown_timeout_s=config.deadline,
        ray_actor_options={"num_cpus": 0, "num_gpus": gpus},
    )
    ingress: Any = Ingress
    return ingress.bind(config, deployed(Replica).bind(config))


def start(config: ServerConfig) -> None:
    """Start Ray and the server on this machine, and wait until it serves.

    Raises:
        StateError: The server did not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    ray.init(
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        _metrics_export_port=config.metrics_port,
    )
    try:
        serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
        serve.run(application(config), name=APP)
    except RuntimeError as error:
        stop()
        raise StateError(
            f"the server did not start: {str(error).strip()[-500:]}",
            where="fxcache serve",
            remedy="load the artifact with fxcache.load, and check that the ports are free",
        ) from error


def drain(seconds: float) -> int:
    """Refuse new requests, and wait for those that have begun. Return how many are left.

    Args:
        seconds: The most seconds to wait.
    """
    handle: Any = serve.get_app_handle(APP)
    end = time.monotonic() + seconds
    while (left := int(handle.drain.remote().result())) and time.monotonic() < end:
        time.sleep(POLL)
    return left


def stop() -> None:
    """End the server and Ray."""
    serve.shutdown()
    ray.shutdown()


def wait_for_signal() -> None:
    """Return after SIGINT or SIGTERM. A second signal ends the process at once."""
    arrived = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)
        arrived.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    while not arrived.wait(1.0):
        pass
