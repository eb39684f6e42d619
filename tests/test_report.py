"""Tests ``fxcache.report``, as text and as data."""

import json

import pytest
import torch

import fxcache
from tests import tiny
from tests.loops import sample

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture(scope="module")
def reported() -> fxcache.Report:
    unet = fxcache.optimize(
        tiny.small_unet(), fxcache.Uniform(interval=4, last=1), cut=1, hoist=None
    )
    sample(unet, 10, **tiny.inputs())
    sample(unet, 3, **tiny.inputs(batch=1))
    return fxcache.report(unet)


def test_runs_list_refreshes_with_reasons(reported):
    first, second = reported.runs
    assert (first.steps, first.refreshes) == (10, [0, 4, 8, 9])
    assert first.reasons == {"first call": 1, "every 4 steps": 2, "last steps": 1}
    assert (second.steps, second.refreshes) == (3, [0, 2])


def test_times_and_speedups_agree_with_each_other(reported):
    run = reported.runs[0]
    saved = reported.captures[0].cut["share_saved"]
    assert run.ideal_speedup == pytest.approx(10 / (4 + 6 * (1 - saved)), rel=1e-4)
    assert run.speedup == pytest.approx(
        10 * run.refresh_ms / (4 * run.refresh_ms + 6 * run.reuse_ms)
    )


def test_captures_list_cuts_with_reasons(reported):
    assert [c.inputs.split()[0] for c in reported.captures] == ["sample[2,", "sample[1,"]
    for capture in reported.captures:
        assert capture.cut["skip_index"] == 1
        assert capture.reason == "skip index 1 was requested"
        assert capture.cached_skip_nodes < capture.full_nodes


def test_a_report_is_json_and_text(reported):
    data = json.loads(json.dumps(reported.to_dict()))
    assert data["policy"] == fxcache.Uniform(interval=4, last=1).to_dict()
    for expected in ("Uniform(", "skip index 1", "every 4 steps (2)", "last steps (1)"):
        assert expected in str(reported)


def test_a_report_before_the_first_call_is_short():
    report = fxcache.report(fxcache.optimize(tiny.small_unet()))
    assert (report.captures, report.runs, report.cached_bytes) == ([], [], 0)
    assert "UNet2DConditionModel" in str(report)


@torch.no_grad()
def test_an_unfinished_step_has_no_time():
    unet = fxcache.optimize(tiny.small_unet())
    with pytest.raises(RuntimeError), fxcache.session(unet):
        unet(timestep=1, **(tiny.inputs() | {"encoder_hidden_states": torch.ones(1, 1, 5)}))
    assert all(run.refresh_ms is None for run in fxcache.report(unet).runs)


def test_without_timings_nothing_is_timed():
    unet = fxcache.optimize(
        tiny.small_unet(), fxcache.Uniform(3), cache=fxcache.CacheConfig(timings=False)
    )
    sample(unet, 6, **tiny.inputs())
    (run,) = fxcache.report(unet).runs
    assert (run.steps, run.refreshes) == (6, [0, 3])
    assert (run.refresh_ms, run.reuse_ms, run.speedup) == (None, None, None)
    assert run.ideal_speedup is not None
