"""Tests ``fxcache.report``, as text and as data."""

import json
import time
from dataclasses import dataclass

import pytest
import torch

import fxcache
from fxcache.runtime.engine import MAX_RUNS
from fxcache.step import Step
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import guided_sample, sample
from tests.plain import dit, dit_inputs

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


SLOW_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Pondering(fxcache.Uniform):
    """A policy that takes its time before the step's decision, as comparing weights does."""

    def plans_refresh(self, step: Step) -> bool:
        time.sleep(SLOW_S)
        return super().plans_refresh(step)


@torch.no_grad()
def test_step_times_are_those_of_a_users_own_clock():
    model, inputs = fxcache.optimize(dit(), Pondering(interval=3)), dit_inputs()
    clock_ms = []
    for t in torch.linspace(900, 100, 12):
        started = time.perf_counter()
        model(timestep=t, **inputs)
        clock_ms.append(1000 * (time.perf_counter() - started))
    (run,) = optimized_engine(model).runs
    recorded_ms = [step.stopwatch.elapsed_ms or 0.0 for step in run.steps]
    assert all(own <= clock for own, clock in zip(recorded_ms, clock_ms, strict=True))
    slowed = [own for own in recorded_ms[1:] if own >= 1000 * SLOW_S]
    assert len(slowed) == 11, "what fxcache does before a step counts"
    missed_ms = [clock - own for own, clock in zip(recorded_ms, clock_ms, strict=True)]
    assert min(missed_ms) < 1
    assert "from the call of the model to its return" in str(fxcache.report(model))


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


def test_columns_that_no_run_uses_are_left_out(reported):
    def shown(report: fxcache.Report) -> tuple[str, list[str]]:
        lines = str(report).splitlines()
        header = next(line for line in lines if line.split()[:2] == ["run", "capture"])
        return header, [line.partition(":")[0] for line in lines]

    header, legend = shown(reported)
    assert "refresh ms" in header
    assert "refresh ms, reuse ms" in legend
    assert not {"halved", "waits", "compile s"} & {*legend}
    assert all(name not in header for name in ("halved", "waits", "compile"))
    unet = fxcache.optimize(
        tiny.small_unet(),
        fxcache.Uniform(3),
        guidance=fxcache.GuidanceCache(interval=2),
        cache=fxcache.CacheConfig(timings=False),
    )
    guided_sample(unet)
    header, legend = shown(fxcache.report(unet))
    assert "halved" in header
    assert "halved" in legend
    assert " ms" not in header
    assert not {"refresh ms, reuse ms", "reuse ms", "speed-up"} & {*legend}


def test_calls_are_counted_over_the_whole_life():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3))
    for _ in range(MAX_RUNS + 2):
        sample(unet, 3, **tiny.inputs())
    report = fxcache.report(unet)
    assert len(report.runs) == MAX_RUNS
    assert (report.totals.calls, report.totals.refreshes) == (3 * MAX_RUNS + 6, MAX_RUNS + 2)


def test_each_run_names_its_capture(reported):
    assert [run.captures for run in reported.runs] == [[0], [1]]
    assert all(capture.capture_ms > 0 for capture in reported.captures)
    assert reported.totals.capture_ms == sum(c.capture_ms for c in reported.captures)
    text = str(reported)
    assert "capture 1 in " in text
    assert "\ncapture: the captures that the run used" in text, "a legend"


def test_a_run_of_a_dropped_capture_says_so():
    config = fxcache.CaptureConfig(max_captures=1)
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), capture=config)
    sample(unet, 3, **tiny.inputs())
    with pytest.warns(fxcache.FxcacheWarning, match="captured again"):
        sample(unet, 3, **tiny.inputs(batch=1))
    report = fxcache.report(unet)
    assert report.runs[-1].captures == [0]
    assert report.runs[0].captures == [-1]
    assert "dropped" in str(report)


def test_the_second_line_says_what_happened_and_what_to_do(reported):
    _, summary, *_ = str(reported).splitlines()
    assert summary.startswith("7 of 13 calls reused cached values; the last run was ")
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(1))
    assert "nothing has run yet: call the model" in str(fxcache.report(unet))
    sample(unet, 3, **tiny.inputs())
    assert "none of 3 calls reused cached values, so nothing is faster" in str(fxcache.report(unet))


@pytest.mark.usefixtures("clean_dynamo")
def test_compile_time_is_told_apart():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3))
    unet.compile(backend="eager")
    sample(unet, 3, **tiny.inputs())
    sample(unet, 3, **tiny.inputs())
    report = fxcache.report(unet)
    first, second = report.runs
    assert first.compile_ms > 0 == second.compile_ms
    assert report.totals.compile_ms == pytest.approx(first.compile_ms)
    assert " went into torch.compile" in str(report)
