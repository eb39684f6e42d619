"""A server in a process of its own, and its clients."""

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "bench" / "models" / "emoji-sd"
WAIT = 300.0  # seconds; much more than anything here takes


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def pixels(self) -> "np.ndarray[Any, np.dtype[np.int16]]":
        """The pixels of the picture, which must be one."""
        assert self.status == 200, self.body
        assert self.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(self.body))).astype(np.int16)


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: "subprocess.Popen[str]"
    port: int
    log: Path

    def get(self, path: str) -> Reply:
        return self.send(urllib.request.Request(self.url(path)))

    def draw(self, prompt: str = "red apple", steps: int = 8, **wish: Any) -> Reply:
        body = json.dumps({"prompt": prompt, "steps": steps} | wish).encode()
        headers = {"Content-Type": "application/json"}
        return self.send(urllib.request.Request(self.url("/draw"), body, headers))

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def send(self, request: urllib.request.Request) -> Reply:
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                return reply_of(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return reply_of(error.code, error.headers, error.read())

    def until(self, holds: Any, seconds: float = 60.0) -> None:
        """Wait until ``holds()`` is true."""
        end = time.monotonic() + seconds
        while not holds():
            alive = self.process.poll() is None and time.monotonic() < end
            assert alive, self.log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.2)

    def terminate(self) -> None:
        """Ask the server to stop, as a supervisor does."""
        self.process.send_signal(signal.SIGTERM)


def reply_of(status: int, headers: Any, body: bytes) -> Reply:
    return Reply(status, {name.lower(): value for name, value in headers.items()}, body)


@contextmanager
def running(
    artifact: Path, folder: Path, *options: str, pipeline: Path = MODEL
) -> Iterator[Server]:
    """Start a server, and stop it at the end if it still runs."""
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-W", "ignore", "-m", "fxcache.cli", "serve", str(artifact)]
    command += ["--pipeline", str(pipeline)]
    command += ["--port", str(port), "--metrics-port", str(metrics_port)]
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, *options], stdout=file, stderr=file, text=True, env=environment()
        )
    server = Server(process, port, log)
    try:
        server.until(lambda: "fxcache serves on" in log.read_text(encoding="utf-8"), WAIT)
        yield server
    finally:
        if process.poll() is None:
            server.terminate()
        try:
            process.wait(WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def environment() -> dict[str, str]:
    """Return the environment of the server: it does not inherit what tests of pytest set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {"PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """Return a port that the system gives to nobody who asks for any port, as Ray does."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port was found")
