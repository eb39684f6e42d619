"""Starts the server, and ends it without losing a request."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.config import HTTPOptions

from fxcache.errors import ConfigError, StateError
from fxcache.server.config import ServerConfig
from fxcache.server.ingress import APP, REPLICAS, Ingress
from fxcache.server.metrics import ReplicaMetrics
from fxcache.server.painter import Painter

POLL = 0.2  # seconds between two looks at what is still being served
ENDING = (signal.SIGINT, signal.SIGTERM)


class Replica(Painter):
    """A painter that reports its metrics."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        ReplicaMetrics(lambda: self.statistics).report_in_thread()


def application(config: ServerConfig) -> serve.Application:
    """Return the application of Ray Serve: one ingress, and replicas that draw."""
    gpus = 1 if config.device == "cuda" else 0
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
    require_gpus(config)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    try:
        ray.init(
            address="local",  # a cluster of others stays as it is
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _metrics_export_port=config.metrics_port,
        )
        serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
        serve.run(application(config), name=APP)
    except Exception as error:  # Ray's own, and those of the replicas
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
    end, left = time.monotonic() + seconds, 1
    while left and (wait := end - time.monotonic()) > 0:
        left = int(handle.drain.remote().result(timeout_s=wait))
        time.sleep(POLL)
    return left


def stop() -> None:
    """End the server and Ray."""
    serve.shutdown()
    ray.shutdown()


def signalled() -> threading.Event:
    """Return an event that SIGINT or SIGTERM sets. A second signal ends the process at once."""
    arrived = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in ENDING:
            signal.signal(each, signal.SIG_DFL)
        arrived.set()

    for number in ENDING:
        signal.signal(number, handler)
    return arrived


def require_gpus(config: ServerConfig) -> None:
    """Raise ConfigError if there are fewer GPUs than replicas, which would wait for ever."""
    found = torch.cuda.device_count()
    if config.device == "cuda" and found < config.replicas:
        raise ConfigError(
            f"there are {found} GPUs for {config.replicas} replicas",
            where="--replicas",
            remedy="pass fewer replicas, or --device cpu",
        )
