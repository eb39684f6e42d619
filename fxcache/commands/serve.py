"""``fxcache serve``: serve pictures over HTTP."""

import argparse
from dataclasses import MISSING, fields
from typing import Any

from fxcache.commands.options import Result
from fxcache.errors import StateError
from fxcache.integrations.diffusers import DTYPES, installed
from fxcache.server.config import ServerConfig

HELP = {
    "host": "the address to listen on",
    "port": "the port to listen on",
    "metrics_port": "the port of Ray's metrics, for Prometheus",
    "replicas": "how many processes draw",
    "device": "the type of the device of each replica",
    "dtype": "the dtype of the pipeline and of the artifact",
    "threads": "how many threads torch uses in each replica",
    "max_batch": "the greatest number of rows of one call",
    "linger": "how many seconds a waiting step waits for steps of other pictures",
    "align": "how many rounds the first step of a picture waits for the refresh of another one",
    "max_ongoing": "how many pictures a replica draws at once",
    "max_queued": "how many requests wait; further ones get the status 503",
    "max_steps": "the most steps that a request may ask for",
    "deadline": "how many seconds a request may take",
    "retries": "how often a request is tried again after its replica ended",
}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("artifact", help="an artifact of `fxcache export --batched`")
    command.add_argument(
        "--pipeline", required=True, help="the folder of its pipeline, or a hub id"
    )
    for field in fields(ServerConfig):
        if field.default is not MISSING:
            choices: dict[str, Any] = {"choices": DTYPES} if field.name == "dtype" else {}
            command.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(field.default),
                default=field.default,
                help=HELP[field.name],
                **choices,
            )


def run(arguments: argparse.Namespace) -> Result:
    """Serve until SIGINT or SIGTERM, then finish the requests that have begun."""
    config = ServerConfig(
        **{field.name: getattr(arguments, field.name) for field in fields(ServerConfig)}
    )
    installed("ray.serve", "serve")
    from fxcache.server import run as server

    server.start(config)
    try:
        ended = server.signalled()
        print(f"fxcache serves on http://{config.host}:{config.port}", flush=True)  # noqa: T201
        while not ended.wait(1.0):
            pass
        left = server.drain(config.deadline)
    finally:
        server.stop()
    if left:
        raise StateError(
            f"{left} requests had not ended after {config.deadline:g} seconds, and were lost",
            where="fxcache serve",
            remedy="raise --deadline, or lower --max-steps",
        )
    return Result({"stopped": True}, "stopped")
