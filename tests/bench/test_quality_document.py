"""Tests what is said about the measured quality: the claims, the document and the README."""

from typing import Any

import pytest

from bench.figures import result
from bench.quality.__main__ import NAMES, RESULTS
from bench.quality.claims import claims
from bench.quality.document import DOCUMENT, document, draw_curves, picture
from bench.quality.results import Results, read
from fxcache.errors import ModelFileError
from fxcache.policies import ProtectedEnds
from tests.bench.test_quality import CAPTIONS
from tests.policies.test_policies import refreshed


def row(curve: str, speedup: float, psnr_db: float) -> dict[str, Any]:
    return {
        "curve": curve,
        "label": "interval 2",
        "machine": "A processor, threads: 2",
        "ideal_speedup": speedup,
        "speedup": {"value": speedup, "low": speedup - 0.1, "high": speedup + 0.1},
        "psnr_db": psnr_db,
        "ssim": 0.9,
        "frechet": {"value": 12.3, "low": 11.0, "high": 14.0},
    }


ROWS = [
    row("no caching", 1.0, 100.0),
    row("fewer steps", 1.5, 30.0),
    row("fewer steps", 3.5, 20.0),
    row("Uniform", 2.0, 31.0),
    row("Uniform", 4.0, 25.0),
    row("NonUniform", 2.0, 20.0),
    row("NonUniform", 4.0, 27.0),
    row("BlockCaching", 1.5, 29.0),
    row("BlockCaching", 2.5, 26.0),
    row("TeaCache", 8.0, 40.0),
    row("tuned", 2.1, 33.0),
    row("tuned", 3.0, 27.0),
]


def test_claims_follow_from_the_numbers():
    found = {claim.what: claim for claim in claims(ROWS)}
    uneven = found["NonUniform is closer than Uniform at equal FLOPs from 3× on"]
    assert uneven == (uneven.what, "27.0 against 25.0 at 4.00×", True)
    blocks = found["BlockCaching is closer than fewer steps at equal FLOPs"]
    assert blocks.holds is False
    assert blocks.numbers == "29.0 against 30.0 at 1.50×; 26.0 against 25.0 at 2.50×"
    assert found["TeaCache is closer than Uniform at equal FLOPs"].holds is None
    at_2 = found["tuned is the closest at 2×"]
    assert at_2.holds is True
    assert at_2.numbers == (
        "tuned 33.0 at 2.10×; Uniform 30.7; BlockCaching 27.2; fewer steps 27.0; NonUniform 20.4; "
        "not so fast, or faster: TeaCache"
    )
    assert found["tuned is the closest at 3×"].holds is False


def made_up() -> dict[str, dict[str, Any]]:
    protocol = {
        "measured": {"prompts": CAPTIONS, "batch": 2, "steps": 4},
        "calibration": {"prompts": CAPTIONS[:1]},
        "versions": {"torch": "9.9"},
    }
    return {"emoji-sd": {"protocol": protocol, "rows": ROWS}}


def test_the_document_and_the_picture_come_from_the_results(tmp_path, monkeypatch):
    text = document(made_up())
    assert "| Uniform      | interval 2" in text
    assert "4 pictures a setting, one of each caption, 2 at a time, 4 DDIM steps" in text
    assert "A processor, threads: 2; float32, eager; torch 9.9." in text
    assert "12.30 (11.00–14.00)" in text
    assert text.count("**yes**") == 3
    monkeypatch.setattr("bench.quality.document.PICTURES", tmp_path)
    draw_curves(made_up())
    assert picture("emoji-sd").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"emoji-sd": {}}', '{"emoji-sd": []}'])
def test_a_broken_file_is_an_error(tmp_path, content):
    file = tmp_path / "quality.json"
    file.write_text(content)
    with pytest.raises(ModelFileError, match=r"quality\.json"):
        Results(file)


def test_the_committed_document_equals_the_results():
    assert DOCUMENT.exists() == RESULTS.exists()
    if RESULTS.exists():
        models = read(RESULTS)
        assert models.keys() <= set(NAMES)
        assert DOCUMENT.read_text("utf-8") == document(models)


def test_the_default_is_closer_than_all_that_needs_no_calibration():
    for model, measured in read(RESULTS).items():
        found = [c for c in claims(measured["rows"]) if c.what.startswith("ProtectedEnds")]
        assert len(found) == 3
        assert all(claim.holds for claim in found), model


def test_the_committed_demo_ran_under_the_default():
    demo = result("demo")
    assert demo["refreshes"] == len(refreshed(ProtectedEnds(), demo["steps"]))
