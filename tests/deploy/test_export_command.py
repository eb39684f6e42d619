"""Tests ``fxcache export``: artifacts and ONNX of a pipeline's denoiser."""

import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import fxcache
from fxcache.cli import main
from tests import tiny

pytestmark = pytest.mark.usefixtures("shared_captures")

DRAW = ["--prompt", "a cat", "--steps", "6", "--interval", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    tiny.pipeline().save_pretrained(path)
    return path


def exported(capsys: Any, folder: Path, out: Path, *options: str) -> Any:
    assert main(["export", str(folder), *DRAW, "--out", str(out), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Any, folder: Path, out: Path, *options: str) -> str:
    assert main(["export", str(folder), *DRAW, "--out", str(out), *options]) == 1
    return capsys.readouterr().err


@pytest.mark.slow
@torch.no_grad()
def test_onnx_of_a_pipeline(capsys, folder, tmp_path):
    out = tmp_path / "onnx"
    data = exported(capsys, folder, out, "--format", "onnx")
    size = sum(file.stat().st_size for file in (out / "unet").iterdir())
    assert data == {"artifacts": {str(out / "unet"): size}}
    schedule = json.loads((out / "unet" / "schedule.json").read_text())
    assert schedule["runs"] == {"6": ["full", "cached_skip", "cached_skip"] * 2}
    inputs = {"timestep": torch.tensor(9), **tiny.inputs()}
    inputs["encoder_hidden_states"] = torch.randn(2, 16, tiny.TEXT_WIDTH)
    session = onnxruntime.InferenceSession(out / "unet" / "full.onnx")
    feeds = {name: value.numpy() for name, value in inputs.items()}
    (found,) = session.run(["output"], feeds)
    torch.testing.assert_close(torch.from_numpy(found), tiny.small_unet()(**inputs).sample)


def test_artifacts_of_a_pipeline(capsys, folder, tmp_path):
    data = exported(capsys, folder, tmp_path / "artifact")
    assert list(data["artifacts"]) == [str(tmp_path / "artifact" / "unet")]
    assert type(fxcache.load(tmp_path / "artifact" / "unet")).__name__ == "UNet2DConditionModel"


def test_what_onnx_cannot_be_is_said_before_anything_is_drawn(
    capsys, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("fxcache.commands.export.pipeline_from", None)
    out = tmp_path / "onnx"
    message = refused(capsys, folder, out, "--format", "onnx", "--no-weights")
    assert "ONNX files need their weights" in message
    message = refused(capsys, folder, out, "--format", "onnx", "--batched")
    assert "ONNX files are not for a Batcher" in message
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = refused(capsys, folder, out, "--format", "onnx")
    assert "pip install 'fxcache[onnx]'" in message
    assert not list(tmp_path.iterdir())
