"""Tests the web page of the server in headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Page, chromium
from tests.server.processes import Server, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]
STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(artifact, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with chromium() as opened:
        opened.open(server.url("/"))
        yield opened


def draw(page: Page, prompt: str, steps: int) -> None:
    """Type a prompt as a user does, and click."""
    page.evaluate(f"document.querySelector('#steps').value = {steps}")
    page.click("#prompt")
    page.send("Input.insertText", text=prompt)
    page.click("#draw")


def test_a_picture_is_drawn(page, tmp_path):
    draw(page, "tiger face", 12)
    page.until(f"{STATUS}.startsWith('12 steps in ')")
    page.until("document.querySelector('#picture').naturalWidth === 64")
    assert page.evaluate("document.querySelector('#picture').alt") == "tiger face"
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_an_error_is_shown(page):
    draw(page, "tiger face", 101)
    page.until(f"{STATUS} === 'steps=101 is above 100'")
    assert page.evaluate("document.querySelector('#status').className") == "error"
    assert page.evaluate("document.querySelector('#picture').hidden")


def test_a_picture_can_be_cancelled(page, server):
    page.evaluate(
        "for (const n of Array(20).keys()) fetch('draw', {method: 'POST', "
        "headers: {'Content-Type': 'application/json'}, "
        "body: JSON.stringify({prompt: 'bus', steps: 100, seed: n})}); 0"
    )
    draw(page, "tiger face", 100)
    page.until(f"{STATUS} === 'Drawing…'")
    page.click("#cancel")
    page.until(f"{STATUS} === 'Cancelled'")
    assert not page.evaluate("document.querySelector('#draw').disabled")
    server.until(lambda: server.get("/health").data["ongoing"] == 0)
    assert server.draw(steps=4).status == 200
