"""Tests the page of a gate in headless Chromium, from a file: without a server and a network."""

from pathlib import Path

import pytest

from bench.gate import command
from fxcache import cli
from tests.browser import CHROMIUM, chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a gate that fails, because a refresh interval changed."""
    page = tmp_path_factory.mktemp("gate") / "gate.html"
    assert cli.main(command("emoji-dit", "--interval", "4", "--html", str(page))) == 3
    return page


def test_the_page_is_shown_whole(file, tmp_path):
    with chromium() as page:
        page.send("Network.enable")
        page.open(file.as_uri())
        text = page.evaluate("document.body.innerText")
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0
        wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll'))"
        assert page.evaluate(f"{wide}.every(e => e.getBoundingClientRect().right <= innerWidth)")
        # Ten steps were expected to refresh, and five did.
        assert page.evaluate("document.querySelectorAll('rect.computed').length") == 10 + 5
        assert page.evaluate("document.querySelectorAll('line.interval').length") == 3
        page.screenshot(tmp_path / "page.png")
    for title in ("Findings", "Ratios of times", "Schedules", "Graphs", "Milliseconds", "History"):
        assert title in text
    assert "emoji-dit: failed" in text
    assert "[0, 4, 8, 12, 16]" in text
    assert "ProtectedEnds(first=1" in text
    assert (tmp_path / "page.png").stat().st_size > 10_000
