"""Tests ``fxcache calibrate`` on a pipeline folder: it is resumable and deterministic."""

import json
from pathlib import Path
from typing import Any

import pytest

import fxcache
from fxcache.cli import main
from fxcache.pipelines.calibrate import Sampling, calibrate_pipeline
from fxcache.pipelines.drawing import Drawing
from fxcache.policies import MagCache, Policy, SmoothCache
from tests import tiny
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")

PROMPTS = ["a cat", "a dog", "a bus"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    tiny.pipeline().save_pretrained(path)
    (path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n")
    return path


def calibrate(folder: Path, out: Path, *more: str) -> list[str]:
    prompts = folder / "prompts.txt"
    common = ["--prompts", str(prompts), "--steps", "4", "--batch", "2", "--out", str(out)]
    return ["calibrate", str(folder), *common, *more]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("policy", ["blockcaching", "teacache"])
def test_a_plan_is_written_and_drawn_with(capsys, folder, tmp_path, policy):
    plan, picture = tmp_path / "plan.json", tmp_path / "x.png"
    text = said(capsys, *calibrate(folder, plan, "--policy", policy, "--option", "threshold=0.125"))
    assert "optimize(model, '" in text
    written = fxcache.Plan.load(plan)
    assert type(written.policy).__name__.lower() == policy
    assert vars(written.policy)["threshold"] == 0.125
    assert written.settings["prompts"] == PROMPTS
    draw = ["--prompt", "a cat", "--steps", "4", "--out", str(picture), "--json"]
    report = json.loads(said(capsys, "run", folder, "--plan", plan, *draw))
    assert Policy.from_dict(report["policy"]) == written.policy
    assert picture.exists()
    assert not list(tmp_path.glob("*.partial*"))


def test_a_stopped_calibration_continues_with_the_same_plan(tmp_path, monkeypatch):
    sampling = Sampling(PROMPTS, steps=4, batch=1)

    def run(out: Path) -> fxcache.Plan:
        return calibrate_pipeline(tiny.pipeline(), SmoothCache, sampling, out, {"alpha": 0.1})

    whole = run(tmp_path / "whole.json")
    drawn: list[Any] = []
    draw = Drawing.draw

    def stopping(self: Drawing, pipeline: Any, steps: int) -> Any:
        drawn.append(self.prompts)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(self, pipeline, steps)

    monkeypatch.setattr(Drawing, "draw", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "plan.json")
    monkeypatch.setattr(Drawing, "draw", draw)
    with pytest.raises(fxcache.ConfigError, match="policy"):
        calibrate_pipeline(tiny.pipeline(), MagCache, sampling, tmp_path / "plan.json", {})
    drawn.clear()
    monkeypatch.setattr(Drawing, "draw", stopping)
    assert run(tmp_path / "plan.json") == whole
    assert drawn == [["a bus"]], "the first two were done before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json", "whole.json"]


def test_progress_is_shown(capsys, folder, tmp_path):
    assert main(calibrate(folder, tmp_path / "plan.json", "--policy", "magcache")) == 0
    assert "calibrating: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--prompts", "nowhere.txt"], "prompts cannot be read"),
        (["--steps", "0"], "--steps 1 or more"),
        (["--option", "threshold"], "NAME=VALUE"),
        (["--option", "alpha=0.1"], "has no option alpha"),
        (["--option", "threshold=-1"], "threshold"),
        (["--cut", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_give_an_error(capsys, folder, tmp_path, change, expected):
    arguments = calibrate(folder, tmp_path / "plan.json", "--policy", "magcache", *change)
    assert expected in complaint(capsys, *arguments)


def test_a_file_without_prompts_is_refused(capsys, folder, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    arguments = calibrate(folder, tmp_path / "plan.json", "--policy", "magcache")
    assert "no prompts" in complaint(capsys, *arguments, "--prompts", empty)
