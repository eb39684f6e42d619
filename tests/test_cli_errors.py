"""Tests what the command line says about files and names of the wrong kind, and of any model."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

import fxcache
from fxcache.calibration.plan import Plan
from fxcache.cli import main
from tests import tiny
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")

DRAW = ["--prompt", "a cat", "--steps", "2"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    cut = "up_blocks.1.attentions.0"
    Plan.of(tiny.small_unet(), fxcache.Uniform(2), cut).save(file)
    return file


def test_report_recognises_a_plan(capsys, plan):
    text = said(capsys, "report", plan)
    assert text.startswith(f"{plan} is a plan, not a report of a run.")
    for expected in ("Uniform", "up_blocks.1.attentions.0", f"fxcache strip {plan}", "any length"):
        assert expected in text
    assert json.loads(said(capsys, "report", plan, "--json"))["fxcache_plan"]


def test_a_strip_names_the_cut_and_its_colours(capsys, plan, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
    drawn = json.loads(said(capsys, "strip", plan, "--out", tmp_path / "a.svg", "--json"))
    assert list(drawn["schedule"]) == ["up_blocks.1.attentions.0"]
    text = (tmp_path / "a.svg").read_text()
    for expected in ("computed", "reused from the cache", "up_blocks.1.attentions.0"):
        assert f">{expected}<" in text
    assert "steps=0" in complaint(capsys, "strip", plan, "--steps", 0)


@pytest.mark.parametrize(
    "name", ["", "a b", "foo", "a/b/c", "a/b.", "a/ b", "a/é", "https://huggingface.co/a/b"]
)
def test_what_cannot_be_a_hub_id_is_not_looked_up(capsys, monkeypatch, name, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr("fxcache.integrations.diffusers.installed", None)
    for command in (["inspect", name], ["run", name, *DRAW]):
        assert "this is no hub id" in complaint(capsys, *command)


def test_an_error_of_a_library_is_three_lines(capsys, folder, tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory\nand much more")

    monkeypatch.setattr("fxcache.pipelines.drawing.Drawing.draw", broken)
    command = ["run", str(folder), *DRAW, "--out", str(tmp_path / "a.png")]
    assert main(command) == 1
    first, where, remedy = capsys.readouterr().err.splitlines()[-3:]
    assert first == "fxcache: RuntimeError: no memory"
    assert where.startswith("  where: ")
    assert where.endswith(", in broken")
    assert "--traceback" in remedy
    with pytest.raises(RuntimeError, match="no memory"):
        main([*command, "--traceback"])


def test_inspect_takes_the_shapes_of_inputs(capsys, tmp_path):
    from diffusers import PixArtTransformer2DModel

    options = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3}
    sizes = {"sample_size": 8, "cross_attention_dim": 16, "caption_channels": 16}
    PixArtTransformer2DModel(
        **options, **sizes, in_channels=4, out_channels=4, norm_num_groups=4
    ).save_config(tmp_path)
    message = complaint(capsys, "inspect", tmp_path)
    assert "PixArtTransformer2DModel.forward(hidden_states, " in message
    assert "--input hidden_states=" in message
    inputs = ["hidden_states=1,4,8,8", "encoder_hidden_states=1,5,16", "timestep=1:int64"]
    asked = [part for text in inputs for part in ("--input", text)]
    data = json.loads(said(capsys, "inspect", tmp_path, *asked, "--json"))
    assert len(data["cuts"]) == 3
    assert data["cuts"][0]["share_saved"] > 0.5
    assert "does not describe an input" in complaint(capsys, "inspect", tmp_path, "--input", "a=b")


def test_inspect_takes_the_inputs_of_a_pipelines_first_call(capsys, folder):
    real = json.loads(said(capsys, "inspect", folder, "--prompt", "a cat", "--json"))
    known = json.loads(said(capsys, "inspect", folder, "--json", "--batch", 2))
    assert [c["name"] for c in real["cuts"]] == [c["name"] for c in known["cuts"]]


def test_files_are_checked_before_the_work(capsys, folder, tmp_path, monkeypatch, plan):
    monkeypatch.setattr("fxcache.commands.options.load_pipeline", None)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    sampled = ["--prompts", prompts, "--out", tmp_path]
    for command in (
        ["run", folder, *DRAW, "--out", "/proc/a.png"],
        ["tune", folder, *sampled, "--speedup", "2"],
        ["calibrate", folder, *sampled, "--policy", "magcache"],
        ["strip", plan, "--out", "/proc/a.png"],
    ):
        message = complaint(capsys, *command)
        assert "cannot be written" in message
        assert "remedy:" in message
