"""Tests gates of models that are optimised in other ways than by default."""

from typing import Any

import pytest
import torch

import fxcache
from fxcache.gate.exact import measure as gate
from fxcache.gate.exact.measure import measure
from fxcache.gate.subject import Subject
from tests import tiny
from tests.gate.subjects import small

pytestmark = pytest.mark.usefixtures("clean_dynamo")
TEACACHE = fxcache.TeaCache(0.3, coefficients=(1.0, 0.0))
CASES: dict[str, tuple[dict[str, Any], int, set[str]]] = {
    "prefix": (
        {"policy": TEACACHE, "hoist": None},
        3,
        {"prefix", "full after the prefix", "cached_skip after the prefix"},
    ),
    "table": ({"hoist": "table"}, 4, {"full", "cached_skip", "prologue", "timestep_part"}),
    "forecast": (
        {"forecast": fxcache.Hermite(2), "hoist": None},
        2,
        {"full", "cached_skip"},
    ),
}


@pytest.mark.parametrize(("options", "graphs", "names"), CASES.values(), ids=CASES)
def test_every_graph_is_counted(options, graphs, names):
    counts = measure(small(**options)).counts
    capture = counts["denoisers"]["DiT"]["captures"][0]
    assert set(capture["graphs"]) == set(capture["inductor"]) == names
    assert counts["compilation"]["graphs"] == graphs
    assert counts["compilation"]["recompilations"] == 0
    assert counts["quality"]["later_run"]["psnr_db"] > 40


def test_a_pipeline_of_ones_own(monkeypatch):
    monkeypatch.setattr(gate, "launches_of", lambda _: {})  # as tested above; here for 200 kernels
    pipe = tiny.pipeline(unet=tiny.small_unet())
    pipe.set_progress_bar_config(disable=True)
    fxcache.optimize(pipe, fxcache.Uniform(3), hoist=None)

    def images() -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(tiny.PROMPT, 32, 32, num_inference_steps=6, generator=generator).images

    counts = measure(Subject({"unet": pipe.unet}, images, pipe)).counts
    (run,) = counts["denoisers"]["unet"]["later_run"]
    assert run["refreshes"] == [0, 3]
    assert set(counts["quality"]["later_run"]) == {"psnr_db", "ssim"}
    assert fxcache.report(pipe)["unet"].runs == [], "the gate uses engines of its own"
