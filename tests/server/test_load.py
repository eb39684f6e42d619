"""Tests that no request is lost or mixed with others under load, also when a replica is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.server.processes import Reply, Server, running

pytestmark = pytest.mark.slow
REQUESTS = 64
PROMPTS = ("red apple", "tiger face", "bus", "tulip")


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(artifact, folder, "--replicas", "2", "--deadline", "300") as started:
        yield started


def wish(number: int) -> dict[str, Any]:
    """Return one of many different wishes."""
    return {"prompt": PROMPTS[number % 4], "steps": (10, 20, 30)[number % 3], "seed": number}


def draw_all(server: Server) -> list[Reply]:
    """Send all requests at once."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(lambda number: server.draw(**wish(number)), range(REQUESTS)))


@pytest.fixture(scope="module")
def alone(server: Server) -> list[Any]:
    """The picture of each request, drawn alone."""
    return [server.draw(**wish(number)).pixels for number in range(REQUESTS)]


def test_no_request_is_lost_or_mixed_with_others(server, alone):
    replies = draw_all(server)
    assert [reply.status for reply in replies] == [200] * REQUESTS
    errors = [abs(r.pixels - x).max() for r, x in zip(replies, alone, strict=True)]
    assert max(errors) <= 1
    assert min(abs(alone[i] - alone[j]).max() for i in range(8) for j in range(i)) > 50
    assert len({reply.headers["x-fxcache-process"] for reply in replies}) == 2


def test_requests_of_a_killed_replica_are_drawn_by_another(server, alone):
    victim = int(server.draw(**wish(0)).headers["x-fxcache-process"])
    killer = threading.Timer(1.0, os.kill, (victim, signal.SIGKILL))
    killer.start()
    replies = draw_all(server)
    killer.join()
    assert {reply.status for reply in replies} <= {200, 503}, "each fails cleanly, if at all"
    drawn = [number for number, reply in enumerate(replies) if reply.status == 200]
    assert max(abs(replies[number].pixels - alone[number]).max() for number in drawn) <= 1
    assert any(reply.headers.get("x-fxcache-tries") == "2" for reply in replies)
    assert len(drawn) == REQUESTS
    server.until(lambda: server.get("/health").data["replicas"] == 2, 120)
