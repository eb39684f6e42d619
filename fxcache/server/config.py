"""The options of the server."""

from dataclasses import dataclass

from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import DTYPES

LEAST = {"replicas": 1, "threads": 1, "max_batch": 2, "max_ongoing": 1, "max_queued": 1}


@dataclass(frozen=True)
class ServerConfig:
    """The options of ``fxcache serve``.

    Args:
        pipeline: The folder of a diffusers pipeline, or a hub id.
        artifact: The artifact of its denoiser, which takes any number of rows: the result of
            ``fxcache export --batched``.
        host: The address to listen on.
        port: The port to listen on.
        metrics_port: The port of Ray's metrics for Prometheus.
        replicas: How many processes draw. Each loads the pipeline and the artifact.
        device: The type of the device of each replica, such as ``cuda``. Each takes a whole GPU.
        dtype: The dtype of the pipeline, that of the artifact, such as ``bfloat16``.
        threads: How many threads torch uses in each replica.
        max_batch: The greatest number of rows of one call. A guided picture has two rows.
        max_ongoing: How many pictures a replica draws at once.
        max_queued: How many requests wait for a replica, those that are just being assigned
            included. Further ones get the status 503.
        max_steps: The greatest number of steps that a request may ask for.
        deadline: How many seconds a request may take, waiting included. A request may ask for less.
        retries: How often a request is tried again after its replica ended.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    pipeline: str
    artifact: str
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int = 8080
    replicas: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    max_batch: int = 16
    max_ongoing: int = 16
    max_queued: int = 64
    max_steps: int = 100
    deadline: float = 120.0
    retries: int = 1

    def __post_init__(self) -> None:
        for name, least in {**LEAST, "max_steps": 1, "retries": 0}.items():
            self._require(name, getattr(self, name) >= least, f"{least} or more")
        self._require("deadline", self.deadline > 0, "a positive number of seconds")
        for name in ("port", "metrics_port"):
            self._require(name, 0 < getattr(self, name) < 2**16, "a port from 1 to 65535")
        self._require("device", self.device.isalpha(), "a type without an index, such as cuda")
        self._require("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        self._require("metrics_port", self.metrics_port != self.port, "another port than --port")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(
                f"{name}={getattr(self, name)!r} is not allowed",
                where=f"--{name.replace('_', '-')}",
                remedy=f"pass {allowed}",
            )
