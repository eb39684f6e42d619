"""Tests ``fxcache compare``, and the options that choose policies, forecasts and guidance."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fxcache._torch import compile_ns
from fxcache.pipelines.compare import Race
from fxcache.pipelines.entrant import Entrant
from fxcache.report.lettering import Lettering
from fxcache.report.sheet import TILE, sheet
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")

DRAW = ["--prompt", "a cat", "--steps", "6"]


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A comparison of three policies, the first of which reuses nothing."""
    from fxcache.cli import main

    out = tmp_path_factory.mktemp("compared")
    policies = ["--policy", "uniform", "--option", "interval=1"]
    policies += ["--policy", "Uniform", "--option", "interval=3"]
    policies += ["--policy", "taylor-seer", "--option", "interval=3", "--guidance"]
    files = ["--out", out / "sheet.png", "--chart", out / "chart.svg", "--csv", out / "table.csv"]
    command = ["compare", folder, *DRAW, *policies, "--rounds", "2", *files]
    assert main([*map(str, command), "--json"]) == 0
    return out, {"command": command}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_rows_are_no_caching_each_policy_and_fewer_steps(compared):
    original, exact, third, taylor, *fewer = rows_of(compared[0])
    assert original["label"] == "no caching"
    assert (exact["label"], third["label"]) == ("Uniform(interval=1)", "Uniform(interval=3)")
    assert taylor["label"] == "TaylorSeer(interval=3) + GuidanceCache()"
    assert {row["kind"] for row in fewer} == {"fewer steps"}
    assert any(int(row["steps"]) == round(6 / float(third["flops"])) for row in fewer)
    for row in fewer:
        assert float(row["flops"]) == pytest.approx(6 / int(row["steps"]))


def test_refreshes_flops_and_quality_are_those_of_the_policy(compared):
    _, exact, third, *_ = rows_of(compared[0])
    assert exact["refreshes"] == "6"
    assert 1 <= float(exact["flops"]) < 1.01, "what depends on the prompt is computed once"
    assert (float(exact["psnr_db"]), float(exact["ssim"])) == (100, 1)
    assert (third["calls"], third["refreshes"]) == ("6", "2")
    assert float(third["flops"]) > 1
    assert float(third["psnr_db"]) < 100


def test_speedups_come_from_paired_runs_and_capture_is_told_apart(compared):
    _, exact, *others = rows_of(compared[0])
    for row in (exact, *others):
        for what in ("denoiser", "pipeline"):
            low, middle, high = (
                float(row[f"{what}_speedup_{n}"]) for n in ("low", "median", "high")
            )
            assert 0 < low <= middle <= high
            assert row[f"{what}_speedup_n"] == "2"
    assert 0 < float(exact["capture_s"]) < float(exact["first_s"])
    assert float(others[0]["capture_s"]) == 0, "the capture is made once"


def test_the_sheet_and_the_chart_are_drawn(compared):
    out, _ = compared
    with Image.open(out / "sheet.png") as page:
        assert page.height > len(rows_of(out)) * TILE
    drawn = (out / "chart.svg").read_text()
    assert "<svg" in drawn
    assert "<!-- fewer steps -->" in drawn


def test_the_text_defines_each_column(folder, tmp_path, capsys):
    command = ["--policy", "uniform", "--rounds", "1", "--out", tmp_path / "a.png"]
    text = said(capsys, "compare", folder, "--prompt", "a cat", "--steps", 2, *command)
    for column in ("steps", "refreshes", "FLOPs", "denoiser", "pipeline", "first run", "capture"):
        assert f"\n{column}: " in text


@pytest.mark.usefixtures("clean_dynamo")
def test_compiled_rows_tell_their_compile_time_apart(folder, tmp_path, capsys, monkeypatch):
    rounds: list[float] = []
    run = Race.run

    def noting(race: Race, entrant: Entrant) -> None:
        before = compile_ns()
        run(race, entrant)
        rounds.append(compile_ns() - before)

    monkeypatch.setattr(Race, "run", noting)
    command = ["--policy", "uniform", "--option", "interval=3", "--policy", "uniform"]
    command += ["--option", "interval=2", "--rounds", "2", "--compile", "eager"]
    files = ["--out", tmp_path / "a.png", "--csv", tmp_path / "table.csv"]
    text = said(capsys, "compare", folder, *DRAW, *command, *files)
    assert "\ncompile: " in text
    original, third, *_ = rows_of(tmp_path)
    assert float(original["compile_s"]) > 0
    assert 0 < float(third["compile_s"]) < float(third["first_s"])
    assert third["refreshes"] == "2"
    assert set(rounds) == {0}, "measured runs compile nothing"


def test_run_takes_a_policy_a_forecast_and_guidance(folder, tmp_path, capsys):
    command = ["--policy", "uniform", "--option", "interval=3", "--forecast", "hermite"]
    command += ["--option", "order=2", "--guidance", "--option", "interval=2", "--json"]
    data = json.loads(said(capsys, "run", folder, *DRAW, *command, "--out", tmp_path / "a.png"))
    assert data["policy"]["policy"] == "Uniform"
    (run,) = data["runs"]
    assert run["halved"], "guidance computes one half alone"
    assert set(run["refreshes"]) >= {0, 3}


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("run", ["--policy", "unifrom"], "pass one of: blockcaching"),
        ("run", ["--policy", "uniform", "--option", "intervall=3"], "its options are: "),
        ("run", ["--policy", "uniform", "--option", "interval=0"], "interval=0"),
        ("run", ["--policy", "uniform", "--option", "interval"], "has no ="),
        ("run", ["--policy", "uniform", "--option", "interval=[1"], "is not JSON"),
        ("run", ["--option", "interval=3"], "belongs to no policy"),
        ("run", ["--policy", "uniform", "--policy", "taylorseer"], "fxcache compare"),
        ("run", ["--policy", "uniform", "--interval", "3"], "more than one policy"),
        ("run", ["--policy", "uniform", "--plan", "p.json"], "the plan has its policy"),
        (
            "run",
            ["--policy", "magcache"],
            "run `fxcache calibrate PIPELINE --policy magcache --prompts FILE --out plan.json` "
            "once, and pass --plan plan.json in place of --policy magcache",
        ),
        ("compare", ["--policy", "block-caching"], "PIPELINE --policy blockcaching --prompts FILE"),
        ("run", ["--policy", "scheduled"], "run `fxcache tune PIPELINE --speedup 2 --prompts FILE"),
        ("run", ["--policy", "learnedrouter"], "train it once in Python"),
        ("run", ["--forecast", "tailor"], "pass one of: hermite"),
        ("run", ["--guidance", "--option", "every=3"], "its options are: interval"),
        ("run", ["--report", "{folder}/unet"], "cannot be written"),
        ("compare", [], "name one or more"),
        ("compare", ["--policy", "uniform", "--policy", "uniform"], "name one or more"),
        ("compare", ["--policy", "uniform", "--rounds", "0"], "rounds=0"),
        ("compare", ["--policy", "uniform", "--compile", "gcc"], "no backend 'gcc'"),
        ("compare", ["--policy", "uniform", "--chart", "a.txt"], "names no known file type"),
        ("compare", ["--policy", "uniform", "--csv", "{folder}/unet"], "cannot be written"),
        ("compare", ["--policy", "uniform", "--out", "/proc/a.png"], "cannot be written"),
    ],
)
def test_wrong_options_are_errors_before_the_pipeline_is_loaded(
    capsys, folder, tmp_path, monkeypatch, command, options, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fxcache.commands.options.load_pipeline", None)
    options = [option.format(folder=folder) for option in options]
    message = complaint(capsys, command, folder, *DRAW, *options)
    assert expected in message
    assert "remedy:" in message
    assert not list(tmp_path.iterdir())


def test_captions_fit_and_draw_any_script():
    letters = Lettering()
    for text in ("a photograph of an astronaut riding a horse on Mars", "жар-птица", "x" * 99):
        lines = letters.wrap(text, 128, 3)
        assert len(lines) <= 3
        assert all(letters.width(line) <= 128 for line in lines)
    assert letters.wrap("a red apple", 128) == ["a red apple"]
    assert letters.wrap("x" * 99, 128, 2)[-1].endswith("…")
    picture = Image.new("RGB", (64, 64))
    first, second = (sheet({"row": [picture]}, [text]).tobytes() for text in ("жар", "\U0010fffd"))
    assert first != second
    assert letters.width("\U0010fffd") == letters.width("\\U0010fffd"), "no font has it"
