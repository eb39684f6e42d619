"""The options of the server."""

from dataclasses import dataclass

from fxcache.checks import place, require_integer, require_number
from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import DTYPES

POSITIVE = ("replicas", "threads", "max_ongoing", "max_queued", "max_steps")


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
        linger: How many seconds a waiting step waits for steps of other pictures.
        align: For how many rounds the first step of a picture waits for the refresh of another one.
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
    linger: float = 0.005
    align: int = 0
    max_ongoing: int = 16
    max_queued: int = 64
    max_steps: int = 100
    deadline: float = 120.0
    retries: int = 1

    def __post_init__(self) -> None:
        for name in POSITIVE:
            require_integer(self, name, 1)
        require_integer(self, "max_batch", 2)
        for name in ("retries", "align"):
            require_integer(self, name, 0)
        require_number(self, "linger", 0)
        require_number(self, "deadline", 0, exclusive=True)
        for name in ("port", "metrics_port"):
            require_integer(self, name, 1, 2**16 - 1)
        self._require("device", self.device.isalpha(), "a type without an index, such as cuda")
        self._require("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        self._require("metrics_port", self.metrics_port != self.port, "another port than port")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(
                f"{name}={getattr(self, name)!r} is not allowed",
                where=place(self, name),
                remedy=f"pass {allowed}",
            )
