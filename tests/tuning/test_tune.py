"""Tests the tuner on a small U-Net: its measurements, its plans, and the restored model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.calibration.calibration import recording
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.cli import main
from fxcache.codecs.codec import ReadContext
from fxcache.codecs.history import History, HistoryWeights
from fxcache.codecs.identity import Identity
from fxcache.forecasts import Taylor
from fxcache.kernels.forecast_read.reference import forecast_read
from fxcache.partition.request import AUTO
from fxcache.policies import FirstBlock, Scheduled, Uniform
from fxcache.runtime import captures
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.features.recording import Recording
from fxcache.step import Step
from fxcache.tuning.memory import Memory
from fxcache.tuning.options import Options
from fxcache.tuning.profile import Profile, forecast
from fxcache.tuning.trial import Trial, psnr_db
from fxcache.tuning.tune import Tuner
from tests import tiny
from tests.loops import sample
from tests.runtime.stored import store, stored
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")

T = 10


def sampled(unet: nn.Module) -> Tensor:
    """Return two latents after ten steps, scaled to numbers from 0 to 1."""
    return torch.sigmoid(sample(unet, T, **tiny.inputs(batch=2)) / 50)


@pytest.fixture(scope="module")
def tuner() -> Tuner:
    unet = tiny.small_unet()
    options = Options(cuts=2, gaps=5, order=1, probes=4)
    return Tuner(unet, lambda: sampled(unet), options)


@torch.no_grad()
def test_the_profile_equals_the_error_of_reuse():
    """Compared with a U-Net whose middle block returns its output of some steps before."""
    unet, profile = tiny.small_unet(), Profile(gaps=3, order=0)
    with recording(unet, profile, ["mid_block"]):
        sample(unet, 5, **tiny.inputs())
    held: list[Tensor] = []
    calls: list[dict[str, Any]] = []
    middle = unet.mid_block.register_forward_hook(lambda *a: held.append(a[-1].clone()))
    whole = unet.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(dict(kwargs, args=args)), with_kwargs=True
    )
    sample(unet, 5, **tiny.inputs())
    middle.remove()
    whole.remove()
    for step in range(1, 5):
        given = dict(calls[step])
        args = given.pop("args")
        expected = unet(*args, **given).sample
        for gap in range(1, min(step, 3) + 1):
            handle = unet.mid_block.register_forward_hook(lambda *_: held[step - gap])  # noqa: B023
            error = (unet(*args, **given).sample - expected).square().mean()
            handle.remove()
            assert profile.errors("mid_block", 0)[step, gap - 1] == pytest.approx(
                float(error), rel=1e-3
            )
    assert math.isinf(profile.errors("mid_block", 0)[1, 1])


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("gap", [1, 2, 4])
def test_profiled_forecasts_equal_the_caches(order, gap):
    distance, cache = gap + 1, FeatureCache()
    values = torch.randn(30, 3, dtype=torch.float64).cumsum(0)
    refreshed = [29 - gap - i * distance for i in range(order, -1, -1)]
    for step in refreshed:
        codec = History(Taylor(order)) if order else Identity()
        store(cache, values[step], step, codec, fresh=step == refreshed[0])
    expected, *_ = refreshes = stored(cache)
    if order:
        context = ReadContext(cache.entries, (0,), Step(29, 30))
        (weights,) = HistoryWeights(Taylor(order)).at(context).values()
        expected = forecast_read(refreshes, weights[0])
    past = [(value,) for value in values[:29].flip(0)]
    (found,) = forecast(past, gap, order)
    torch.testing.assert_close(found, expected)


def test_few_past_steps_limit_the_order():
    past = [(torch.tensor([4.0]),), (torch.tensor([3.0]),), (torch.tensor([2.0]),)]
    (found,) = forecast(past, gap=1, order=3)
    assert found.item() == 5.0, "one difference of two steps, however high the order"


def test_psnr():
    zeros = torch.zeros(2, 5)
    assert psnr_db(zeros + 0.1, zeros) == pytest.approx(20)
    assert psnr_db(zeros, zeros) == math.inf


def test_results_with_nan_never_win(tuner, monkeypatch):
    found = iter([math.nan, 30.0, math.nan, 20.0])

    def tried(policy: Any, cut: Any, predicted: float, forecast: Any) -> Trial:
        return Trial(policy, cut, 1.5, next(found, 10.0), predicted, forecast)

    monkeypatch.setattr(tuner, "tried", tried)
    assert tuner.best(1.5).psnr_db == 30


def test_the_model_is_captured_once_for_all_trials(monkeypatch):
    """Each trial has another policy, another cut or another forecast."""
    counted, capture = [], vars(captures)["capture"]

    def counting(*args: Any) -> Any:
        counted.append(args)
        return capture(*args)

    monkeypatch.setattr(captures, "capture", counting)
    unet = tiny.small_unet()
    tuner = Tuner(unet, lambda: sampled(unet), Options(cuts=2, mixed=1, gaps=2, probes=2))
    tuner.best(1.5)
    tuner.tried(FirstBlock(0.1), AUTO)
    assert len(counted) == 1


@pytest.mark.parametrize("speedup", [1.0, 0.5, math.nan])
def test_a_speedup_that_saves_nothing_is_refused(tuner, speedup):
    with pytest.raises(fxcache.ConfigError, match="saves nothing"):
        tuner.best(speedup)


def test_a_model_is_unwrapped_and_must_not_be_optimised(tuner):
    unet = tiny.small_unet()
    compiled: Any = torch.compile(unet, backend="eager")
    options = Options(cuts=1, gaps=2, order=0, probes=2)
    assert Tuner(compiled, lambda: sampled(unet), options).model is unet
    fxcache.optimize(unet)
    with pytest.raises(fxcache.StateError, match="optimised already"):
        Tuner(unet, lambda: sampled(unet), options)


def test_an_unknown_length_is_refused_at_once():
    unet = tiny.small_unet()
    calls = []

    def untold() -> Tensor:
        calls.append(1)
        latents, text = tiny.inputs()["sample"], tiny.inputs()["encoder_hidden_states"]
        for timestep in range(900, 100, -200):
            latents = latents - 0.1 * unet(latents, timestep, text).sample
        return latents

    with torch.no_grad(), pytest.raises(fxcache.ScheduleError, match="how many steps"):
        Tuner(unet, untold)
    assert len(calls) == 1


@pytest.mark.parametrize("speedup", [1.3, 1.7, 2.2])
def test_the_plan_reaches_its_speed_and_beats_uniform(tuner, speedup):
    trial = tuner.best(speedup)
    assert trial.speedup >= speedup
    rivals = [tuner.tried(Uniform(n), "auto") for n in (2, 3, 4, 5)]
    slower = [r.psnr_db for r in rivals if r.speedup >= trial.speedup - 0.01]
    assert trial.psnr_db > max(slower, default=0.0)


def test_a_plan_repeats_its_trial(tuner, tmp_path):
    trial = tuner.best(2.0)
    tuner.plan(trial, {"steps": T}).save(tmp_path / "plan.json")
    unet = fxcache.optimize(tiny.small_unet(), plan=tmp_path / "plan.json", hoist=None)
    assert psnr_db(sampled(unet), tuner.original) == trial.psnr_db
    (run,) = fxcache.report(unet).runs
    assert run.ideal_speedup == pytest.approx(trial.speedup)


def test_a_quality_is_reached_at_the_highest_speed_found(tuner):
    easy, hard = tuner.closest(20.0), tuner.closest(40.0)
    assert easy.psnr_db >= 20
    assert hard.psnr_db >= 40
    assert easy.speedup > hard.speedup


def test_a_budget_of_time(tuner, monkeypatch):
    assert all(ms > 0 for ms in tuner._step_ms(next(iter(tuner.cuts))))
    monkeypatch.setattr(tuner, "_step_ms", lambda cut: (10.0, 2.0))
    trial = tuner.within(60.0)
    reuses = sum(map(bool, trial.policy.reused))
    assert 10 * (T - reuses) + 2 * reuses <= 60 < 10 * (T - reuses + 1) + 2 * (reuses - 1)
    with pytest.raises(fxcache.CutError, match="already"):
        tuner.within(200.0)


def test_an_unreachable_target_is_refused(tuner):
    with pytest.raises(fxcache.CutError, match="pass a smaller speed-up"):
        tuner.best(11.0)
    with pytest.raises(fxcache.CutError, match="decibels"):
        tuner.closest(500.0)


def test_plans_mix_cuts_and_the_model_is_restored(tuner):
    assert len(tuner.cuts) == 2
    assert type(tuner.model) is type(tiny.small_unet())
    tried = {cut for _, found in tuner.solutions(1.2) for cut in found.reused if cut}
    assert tried == set(tuner.cuts)


@pytest.mark.parametrize(
    "bad", [{"cuts": 0}, {"gaps": 1.5}, {"order": -1}, {"order": 9}, {"probes": True}]
)
def test_wrong_options_raise_config_error(bad):
    with pytest.raises(fxcache.ConfigError, match=next(iter(bad))):
        Options(**bad)


def test_a_model_that_is_not_sampled():
    with pytest.raises(fxcache.CutError, match="was not called"):
        Tuner(tiny.small_unet(), lambda: torch.zeros(1, 3))


def test_scheduled_is_a_table():
    policy = Scheduled(names=("a", "b"), reused=((), ("a",), ("a", "b")))
    assert [sorted(row) for row in policy.rows] == [["a", "b"], ["b"], []]
    with pytest.raises(fxcache.ConfigError, match="names"):
        Scheduled(names=("a",), reused=((), ("c",)))
    with pytest.raises(fxcache.ConfigError, match="list"):
        Scheduled(names="ab", reused=((),))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    tiny.pipeline().save_pretrained(path)
    (path / "prompts.txt").write_text("a cat\na dog\n")
    return path


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    few = ["--cuts", "1", "--mixed", "1", "--probes", "2", "--order", "0", "--verified", "1"]
    common = ["--prompts", str(folder / "prompts.txt"), "--steps", "6", "--out", str(out)]
    return ["tune", str(folder), *common, *few, *more]


def test_the_command_writes_a_plan_and_two_pictures(capsys, folder, tmp_path):
    plan, pareto, strip = (tmp_path / n for n in ("plan.json", "pareto.png", "strip.svg"))
    data = json.loads(
        said(capsys, *arguments(folder, plan, "--speedup", "1.5", "--picture", pareto, "--json"))
    )
    assert data["speedup"] >= 1.5
    assert set(data["curves"]) == {"tuned", "Uniform", "NonUniform", "TaylorSeer", "fewer steps"}
    written = Plan.load(plan)
    assert isinstance(written.policy, Scheduled)
    assert written.settings["speedup"] == 1.5
    assert pareto.read_bytes().startswith(b"\x89PNG")
    drawn = json.loads(said(capsys, "strip", plan, "--out", strip, "--json"))
    (steps,) = drawn["schedule"].values()
    assert steps == [s for s, reused in enumerate(written.policy.reused) if not reused]
    assert "<svg" in strip.read_text()


def test_a_strip_of_an_observing_run_is_drawn(capsys, folder, tmp_path):
    prompts, plan, report = folder / "prompts.txt", tmp_path / "p.json", tmp_path / "r.json"
    calibrate = ["--policy", "teacache", "--prompts", prompts, "--steps", "5", "--out", plan]
    said(capsys, "calibrate", folder, *calibrate)
    assert "observes a signal" in complaint(capsys, "strip", plan)
    draw = ["--prompt", "a cat", "--steps", "5", "--plan", plan, "--report", report]
    said(capsys, "run", folder, *draw, "--out", tmp_path / "x.png")
    drawn = json.loads(said(capsys, "strip", report, "--out", tmp_path / "strip.png", "--json"))
    (steps,) = drawn["schedule"].values()
    assert steps == json.loads(report.read_text())["runs"][-1]["refreshes"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ([], "exactly one"),
        (["--speedup", "2", "--psnr", "30"], "exactly one"),
        (["--speedup", "-1"], "more than 1"),
        (["--psnr", "nan"], "above 0"),
        (["--speedup", "50"], "pass a smaller speed-up"),
        (["--psnr", "30", "--gaps", "0"], "gaps"),
    ],
)
def test_wrong_options_give_an_error(capsys, folder, tmp_path, change, expected):
    assert expected in complaint(capsys, *arguments(folder, tmp_path / "plan.json", *change))


def test_the_tuner_reports_its_progress(capsys, folder, tmp_path):
    assert main([str(a) for a in arguments(folder, tmp_path / "p.json", "--speedup", "1.3")]) == 0
    said = capsys.readouterr().err
    assert "profiling 1 cuts" in said
    assert "probe 1 of 2: " in said
    assert "probe 2 of 2: " in said
    assert "schedule 1 of 1: " in said


def test_what_no_schedule_reaches_is_refused_at_the_first_step(
    capsys, folder, tmp_path, monkeypatch
):
    drawn: list[object] = []
    record = Recording.after_step

    def counted(*given: Any) -> Any:
        drawn.append(given)
        return record(*given)

    monkeypatch.setattr(Recording, "after_step", counted)
    message = complaint(capsys, *arguments(folder, tmp_path / "p.json", "--speedup", "50"))
    assert "no schedule is 50 times as fast" in message
    assert len(drawn) == 1


def test_an_interrupted_tuner_continues(capsys, folder, tmp_path, monkeypatch):
    command = [str(a) for a in arguments(folder, tmp_path / "p.json", "--speedup", "1.3")]
    tried: list[str] = []
    keep = Memory.keep_trial

    def stopping(self: Memory, key: str, *found: float) -> None:
        keep(self, key, *found)
        tried.append(key)
        if len(tried) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Memory, "keep_trial", stopping)
    assert main(command) == 130
    assert "run the same command to continue" in capsys.readouterr().err
    (partial,) = tmp_path.glob("p.json.*.partial")
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "continuing after 2 measurements" in said
    assert "profiling" not in said
    assert len(tried) == len(set(tried)), "no run was made twice"
    assert not partial.exists()


def test_plots_without_matplotlib_are_refused(capsys, folder, tmp_path, monkeypatch):
    plan = tmp_path / "plan.json"
    unet = tiny.small_unet()
    policy = Scheduled(names=("a",), reused=((), ("a",)))
    Plan(policy, "auto", fingerprint(unet), {"steps": 2}).save(plan)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert "pip install" in complaint(capsys, "strip", plan, "--out", tmp_path / "x.png")
