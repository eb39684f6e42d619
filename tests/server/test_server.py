"""Tests the server: pictures, errors, metrics, and an end that loses no request."""

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.processes import Reply, Server, running

LIMITS = ("--max-ongoing", "2", "--max-queued", "1", "--max-steps", "1000")
LONG = 300


@pytest.fixture(scope="module")
def server(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(small / "unet", folder, *LIMITS, pipeline=small / "pipeline") as started:
        yield started


def test_the_same_wish_gives_the_same_picture(server):
    one, again, other = (server.draw(seed=seed).pixels for seed in (1, 1, 2))
    assert abs(one - again).max() <= 1
    assert abs(one - other).max() > 50


@pytest.mark.parametrize(
    ("wish", "cause"),
    [
        ({"steps": 1001}, "steps"),
        ({"steps": 0}, "steps"),
        ({"prompt": ""}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"deadline": 0}, "deadline"),
        ({"sed": 1}, "sed"),
        ({"seed": "1"}, "seed"),
        ({"steps": True}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_wrong_wishes_are_refused(server, wish, cause):
    reply = server.draw(**wish)
    assert reply.status == 422
    assert cause in reply.data["error"]


def test_requests_beyond_the_queue_are_refused_at_once(server):
    """Two are drawn at once, few wait, and the others get a clear answer."""
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda seed: server.draw(steps=100, seed=seed), range(8)))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    (refused, *_) = [reply for reply in replies if reply.status == 503]
    assert refused.data == {"error": "the queue of 1 is full"}
    assert refused.headers["retry-after"] == "1"


def seconds(call: Callable[[], Reply]) -> float:
    """Return how long a picture took."""
    began = time.monotonic()
    assert call().status == 200
    return time.monotonic() - began


@pytest.fixture(scope="module")
def long(server: Server) -> float:
    """The seconds of a long picture, alone."""
    return seconds(lambda: server.draw(steps=LONG))


def test_pictures_that_miss_their_deadlines_end(server, long):
    """They take both places of the replica, until they end."""
    late = [server.draw(steps=LONG, deadline=0.3) for _ in range(2)]
    error = {"error": "the picture was not done after 0.3 seconds"}
    assert [(reply.status, reply.data) for reply in late] == [(504, error)] * 2
    assert seconds(lambda: server.draw(steps=4)) < long / 2


def test_pictures_whose_clients_leave_end(server, long):
    body = json.dumps({"prompt": "bus", "steps": LONG}).encode()
    head = f"POST /draw HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address) as one, socket.create_connection(address) as other:
        for number, connection in enumerate((one, other)):
            connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            server.until(lambda n=number: server.get("/health").data["ongoing"] == n + 1)
    server.until(lambda: server.get("/health").data["ongoing"] == 0)
    assert seconds(lambda: server.draw(steps=4)) < long / 2


@pytest.mark.parametrize("body", [b"x" * 70_000, b'{"prompt": "a", "seed": Infinity}', b"{", b"[]"])
def test_wrong_bodies_are_refused(server, body):
    headers = {"Content-Type": "application/json"}
    reply = server.send(urllib.request.Request(server.url("/draw"), body, headers))
    assert reply.status in (413, 422)
    assert reply.data.keys() == {"error"}


def test_health_page_and_metrics(server):
    assert server.get("/health").data == {"replicas": 1, "draining": False, "ongoing": 0}
    assert b"<form" in server.get("/").body
    names: tuple[str, ...] = ("steps_total", "refreshes_total", "calls_total", "ongoing_requests")
    names += ("requests_total", "request_seconds_count", "open_requests", "waiting_steps")
    names += ("cached_bytes",)
    server.draw()

    def complete() -> bool:
        text = server.get("/metrics").body.decode()
        return all(f"ray_fxcache_{name}{{" in text for name in names) and 'rows="2"' in text

    server.until(complete)


def test_a_server_that_stops_finishes_what_has_begun(server):
    """Keep it last: it ends the server of this file."""
    with ThreadPoolExecutor(2) as pool:
        begun = []
        for seed in range(2):  # one after the other: two at once may both be in the queue of one
            begun.append(pool.submit(server.draw, steps=LONG, seed=seed))
            server.until(lambda n=seed: server.get("/health").data["ongoing"] == n + 1)
        server.terminate()
        server.until(lambda: server.get("/health").data["draining"])
        late = server.draw()
        assert (late.status, late.data) == (503, {"error": "the server is shutting down"})
        assert server.get("/health").status == 503
        assert all(future.result().pixels.any() for future in begun)
    assert server.process.wait(60) == 0
