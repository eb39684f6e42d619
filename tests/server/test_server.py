"""Tests the server: pictures, errors, metrics, and an end that loses no request."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.processes import Server, running

LIMITS = ("--max-ongoing", "2", "--max-queued", "1", "--max-steps", "1000")


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(artifact, tmp_path_factory.mktemp("server"), *LIMITS) as started:
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
    ],
)
def test_wrong_wishes_are_refused(server, wish, cause):
    reply = server.draw(**wish)
    assert reply.status == 422
    assert cause in reply.body.decode()


def test_requests_beyond_the_queue_are_refused_at_once(server):
    """Two are drawn at once, few wait, and the others get a clear answer."""
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda seed: server.draw(steps=100, seed=seed), range(8)))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    (refused, *_) = [reply for reply in replies if reply.status == 503]
    assert refused.data == {"error": "all replicas are busy, and 1 requests wait"}
    assert refused.headers["retry-after"] == "1"


def test_a_picture_that_misses_its_deadline_ends(server):
    reply = server.draw(steps=1000, deadline=0.5)
    assert (reply.status, reply.data) == (
        504,
        {"error": "the picture was not done after 0.5 seconds"},
    )
    server.draw()  # the replica is free for others
    server.until(lambda: server.get("/health").data["ongoing"] == 0)


def test_health_page_and_metrics(server):
    assert server.get("/health").data == {"replicas": 1, "draining": False, "ongoing": 0}
    assert b"<form" in server.get("/").body
    names: tuple[str, ...] = ("steps_total", "refreshes_total", "calls_total", "queue")
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
        begun = [pool.submit(server.draw, steps=300, seed=seed) for seed in range(2)]
        server.until(lambda: server.get("/health").data["ongoing"] == 2)
        server.terminate()
        server.until(lambda: server.get("/health").data["draining"])
        late = server.draw()
        assert (late.status, late.data) == (503, {"error": "the server is shutting down"})
        assert server.get("/health").status == 503
        assert all(future.result().pixels.any() for future in begun)
    assert server.process.wait(60) == 0
