"""Tests the painter of the server without Ray."""

import asyncio
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fxcache
from fxcache.server import ServerConfig
from fxcache.server.painter import Drawn, Painter, Wish

WISH = Wish("red apple", steps=6, seed=1)


@pytest.fixture(scope="module")
def painter(small: Path) -> Iterator[Painter]:
    made = Painter(ServerConfig(str(small / "pipeline"), str(small / "unet")))
    yield made
    made.close()


def pixels(drawn: Drawn) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    assert not drawn.refusal
    return np.asarray(Image.open(io.BytesIO(drawn.png))).astype(np.int16)


def test_pictures_drawn_at_once_equal_those_drawn_alone(painter):
    wishes = [replace(WISH, seed=seed, steps=4 + seed) for seed in range(4)]

    async def together() -> list[Drawn]:
        return await asyncio.gather(*map(painter.draw, wishes))

    before = painter.statistics
    found = [pixels(drawn) for drawn in asyncio.run(together())]
    alone = [pixels(asyncio.run(painter.draw(wish))) for wish in wishes]
    for one, other in zip(found, alone, strict=True):
        assert abs(one - other).max() <= 1
    assert abs(found[0] - found[1]).max() > 50
    assert painter.statistics.steps - before.steps == 2 * sum(wish.steps for wish in wishes)


def test_a_picture_that_nobody_waits_for_ends_at_its_next_step(painter):
    async def left() -> None:
        work = asyncio.ensure_future(painter.draw(replace(WISH, steps=999)))
        while not painter.statistics.open_requests:
            await asyncio.sleep(0.01)
        work.cancel()
        while painter.statistics.open_requests:
            await asyncio.sleep(0.01)

    before = painter.statistics.steps
    asyncio.run(asyncio.wait_for(left(), 60))
    assert painter.statistics.steps - before < 500


def test_what_the_pipeline_cannot_draw_is_refused(painter):
    drawn = asyncio.run(painter.draw(replace(WISH, steps=1001)))  # the scheduler has 1000
    assert "1001" in drawn.refusal
    assert not drawn.png
    assert not painter.statistics.open_requests


def test_what_fails_during_the_steps_is_no_refusal(painter, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise ValueError("a fault of the server")

    monkeypatch.setattr(type(painter._pipeline.scheduler), "step", failing)
    with pytest.raises(ValueError, match="a fault of the server"):
        asyncio.run(painter.draw(WISH))


def test_an_artifact_of_another_dtype_fails_at_the_start(small):
    before = threading.active_count()
    with pytest.raises(fxcache.ArtifactError, match="has no graph for this call"):
        Painter(ServerConfig(str(small / "pipeline"), str(small / "unet"), dtype="bfloat16"))
    assert threading.active_count() == before


def test_the_batcher_has_the_options_of_the_server(small):
    folders = str(small / "pipeline"), str(small / "unet")
    made = Painter(ServerConfig(*folders, max_batch=6, linger=0.25, align=9))
    batcher = made._batched.batcher
    made.close()
    assert batcher._calls.buckets == (2, 4, 6)
    assert (batcher._linger, batcher._align) == (0.25, 9)


@pytest.mark.parametrize(
    "changed",
    [
        {"replicas": 0},
        {"deadline": 0.0},
        {"port": 0},
        {"metrics_port": 8000},
        {"max_batch": 1},
        {"linger": -1.0},
        {"align": -1},
        {"max_queued": 0},
        {"device": "cuda:1"},
        {"dtype": "x"},
    ],
)
def test_options_are_checked(changed):
    with pytest.raises(fxcache.ConfigError, match=next(iter(changed))):
        ServerConfig("pipeline", "artifact", **changed)
