"""Tests ``fxcache tune`` and ``fxcache strip``, on the folder of a small pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest

from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.cli import main
from fxcache.policies import Scheduled
from fxcache.runtime.features.recording import Recording
from fxcache.tuning.baseline import TIMED_STEPS
from fxcache.tuning.memory import Memory
from tests import tiny
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")


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
        (["--speedup", "0.5"], "more than 1"),
        (["--speedup", "8"], "pass a smaller speed-up"),
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
    message = complaint(capsys, *arguments(folder, tmp_path / "p.json", "--speedup", "8"))
    assert "no schedule is 8 times as fast" in message
    assert len(drawn) == 1
    drawn.clear()
    message = complaint(capsys, *arguments(folder, tmp_path / "p.json", "--budget-ms", "0.01"))
    assert "no schedule takes 0.01 ms a run: refreshes alone" in message
    assert len(drawn) == TIMED_STEPS


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["--psnr", "nan"], "psnr=nan is not a number above 0"),
        (["--psnr", "-3"], "psnr=-3.0 is not a number above 0"),
        (["--psnr", "1000"], "psnr=1000 is more than pictures can have"),
        (["--budget-ms", "inf"], "budget-ms=inf is not a number above 0"),
        (["--budget-ms", "-1"], "budget-ms=-1.0 is not a number above 0"),
        (["--speedup", "9.5"], "no schedule is 9.5 times as fast"),
    ],
)
def test_what_no_model_reaches_is_refused_before_the_pipeline_is_loaded(
    capsys, folder, tmp_path, monkeypatch, target, expected
):
    monkeypatch.setattr("fxcache.commands.options.load_pipeline", None)
    assert expected in complaint(capsys, *arguments(folder, tmp_path / "p.json", *target))


def test_a_budget_that_a_run_without_caching_meets_is_refused_after_one_run(
    capsys, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("fxcache.tuning.tune.recording", None)
    message = complaint(capsys, *arguments(folder, tmp_path / "p.json", "--budget-ms", "1e6"))
    assert "already takes less than 1e+06 ms a run" in message


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
