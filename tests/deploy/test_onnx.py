"""Tests ONNX exports: ONNX Runtime computes what fxcache computes, up to rounding."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import fxcache
from tests import tiny
from tests.deploy.test_round_trip import CUTS, STEPS, denoised
from tests.deploy.test_step_table import EvenSteps
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "onnx" / "run.py"
RUN = runpy.run_path(str(EXAMPLE))
Model, denoise = RUN["Model"], RUN["denoise"]
TIMES = torch.linspace(900, 100, STEPS)
BATCH = fxcache.CaptureConfig(dynamic={"sample": (0,), "text": (0,)})
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "Explicit": {"policy": fxcache.Explicit((0, 3, 4))},
    "many points": {"policy": fxcache.Uniform(3), "cut": CUTS},
    "parts": {"policy": EvenSteps(), "cut": ["layers.0.out", "layers.1.mlp"]},
    "partial": {"cache": fxcache.CacheConfig(partial_evaluation=True)},
    "any batch": {"policy": fxcache.Uniform(3), "capture": BATCH},
}


def schedule_of(folder: Path) -> Any:
    return json.loads((folder / "schedule.json").read_text())


def by_onnx(folder: Path, batch: int = 2) -> Tensor:
    """Return the latent after the last step, as ``denoised`` does."""
    model, cache = Model(folder, STEPS), dict[str, Any]()
    inputs = {name: value.numpy() for name, value in dit_inputs(batch).items()}
    latent = inputs["sample"]
    for step, t in enumerate(TIMES.tolist()):
        latent = latent - 0.1 * model(step, latent, t, inputs, cache)
    return torch.from_numpy(latent)


def error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.sweep(1)
@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_run_equals_that_of_fxcache_up_to_rounding(options, tmp_path):
    model = fxcache.optimize(dit(3), **options)
    with fxcache.session(model, num_steps=STEPS):
        expected = denoised(model)[-1]
    folder = fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    for file in folder.glob("*.onnx"):
        onnx.checker.check_model(file, full_check=True)
    assert error(by_onnx(folder), expected) < 1e-5
    table = fxcache.step_table(model, STEPS)
    assert schedule_of(folder)["runs"] == {str(STEPS): list(table.steps)}
    assert len(set(table.steps)) > 1


def test_one_file_serves_batches_of_any_size(tmp_path):
    model = fxcache.optimize(dit(3), fxcache.Uniform(3), capture=BATCH)
    denoised(model)
    folder = fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    for batch in (1, 2, 3, 4):
        alone = fxcache.optimize(dit(3), fxcache.Uniform(3))
        with fxcache.session(alone, num_steps=STEPS):
            expected = denoised(alone, batch=batch)[-1]
        assert error(by_onnx(folder, batch), expected) < 1e-5
    schedule = schedule_of(folder)
    assert schedule["sizes"] == {"batch": {"least": 2, "most": None}}
    graph = schedule["graphs"]["cached_skip"]
    shapes = {value["name"]: value["shape"] for value in (*graph["inputs"], *graph["outputs"])}
    assert shapes["sample"] == shapes["output"] == ["batch", 16, 4]
    assert shapes["cached_0"] == ["batch", 16, 16]


def convolutional_unet() -> Any:
    """Build a U-Net with attention in the middle only, which torch.onnx converts sooner."""
    down, up = ("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D")
    middle = "UNetMidBlock2DCrossAttn"
    return tiny.small_unet(down_block_types=down, mid_block_type=middle, up_block_types=up)


@pytest.mark.slow
@torch.no_grad()
def test_height_and_width_may_vary(tmp_path):
    dynamic = {"sample": (0, 2, 3), "encoder_hidden_states": (0,)}
    capture = fxcache.CaptureConfig(dynamic=dynamic)
    unet = fxcache.optimize(convolutional_unet(), fxcache.Uniform(2), capture=capture)
    unet(timestep=torch.tensor(9), **tiny.inputs())
    model = Model(fxcache.export_onnx(unet, tmp_path / "onnx", 2), 2)
    plain = fxcache.optimize(convolutional_unet(), fxcache.Uniform(2))
    for batch, height, width in ((2, 16, 16), (3, 12, 20)):
        text = tiny.inputs(batch)["encoder_hidden_states"]
        sample, cache = torch.randn(batch, 4, height, width), dict[str, Any]()
        inputs = {"encoder_hidden_states": text.numpy()}
        with fxcache.session(plain, num_steps=2):
            for step, t in enumerate((9, 5)):
                expected = plain(sample, torch.tensor(t), encoder_hidden_states=text).sample
                found = torch.from_numpy(model(step, sample.numpy(), t, inputs, cache))
                assert error(found, expected) < 1e-5
    names = schedule_of(tmp_path / "onnx")["sizes"]
    assert list(names) == ["batch", "sample_2", "sample_3"]


def external_bytes(folder: Path) -> dict[tuple[int, int], bytes]:
    """Return the tensors that the graphs read from the file of weights, by their place in it."""
    content, found = (folder / "weights.bin").read_bytes(), {}
    for file in folder.glob("*.onnx"):
        for tensor in onnx.load(file, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                assert place["location"] == "weights.bin"
                span = int(place["offset"]), int(place["length"])
                found[span] = content[span[0] : sum(span)]
    return found


def test_each_weight_is_stored_once(tmp_path):
    model = fxcache.optimize(dit(3), fxcache.Uniform(3), cut=CUTS)
    denoised(model)
    folder = fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    spans = external_bytes(folder)
    stored = list(spans.values())
    assert len(set(stored)) == len(stored)
    for name, weight in dit(3).named_parameters():
        array = weight.detach().numpy()
        forms = {array.tobytes(), array.T.tobytes()}
        assert sum(content in forms for content in stored) == (weight.nbytes >= 256), name
    *_, (offset, length) = sorted(spans)
    assert (folder / "weights.bin").stat().st_size == offset + length
    padding = offset + length - sum(map(len, stored))
    assert 0 <= padding < 64 * len(stored)
    both = [onnx.load(file, load_external_data=False) for file in folder.glob("*.onnx")]
    read = [{t.name for t in graph.graph.initializer if t.external_data} for graph in both]
    assert read[0] & read[1], "both graphs read the weights of the first and last layers"


@pytest.mark.slow
def test_runs_of_several_lengths_share_the_graphs(tmp_path):
    model = fxcache.optimize(dit(3), EvenSteps(), cut=["layers.0.out", "layers.1.mlp"])
    denoised(model)
    folder = fxcache.export_onnx(model, tmp_path / "onnx", [2, STEPS])
    schedule = schedule_of(folder)
    skip = "cached_skip"
    assert schedule["runs"] == {
        "2": ["full", skip],
        "8": ["full", skip, "reuse_1", "full", "reuse_1", skip, "full", skip],
    }
    files = {"weights.bin", *(f"{name}.onnx" for name in ("full", skip, "reuse_1"))}
    assert set(schedule["files"]) == files
    assert {file.name for file in folder.iterdir()} == {*files, "schedule.json"}


@pytest.mark.slow
def test_a_loaded_artifact_becomes_onnx_too(tmp_path):
    model = fxcache.optimize(dit(2), fxcache.Uniform(3), capture=BATCH)
    expected = denoised(model)[-1]
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    denoised(loaded)
    folder = fxcache.export_onnx(loaded, tmp_path / "onnx", STEPS)
    assert error(by_onnx(folder), expected) < 1e-5
    assert schedule_of(folder)["sizes"] == {"batch": {"least": 2, "most": None}}


@pytest.mark.slow
def test_an_export_says_nothing_and_changes_no_setting(tmp_path):
    code = (
        "import logging, torch, fxcache, warnings; from tests.plain import dit, denoised\n"
        "model = fxcache.optimize(dit(2), fxcache.Uniform(3)); denoised(model)\n"
        "before = logging.getLogger('torch.onnx').level, list(warnings.filters)\n"
        f"fxcache.export_onnx(model, {str(tmp_path / 'onnx')!r}, 3)\n"
        "assert before == (logging.getLogger('torch.onnx').level, list(warnings.filters))\n"
        "assert not torch.onnx.is_in_onnx_export()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = onnx.load(tmp_path / "onnx" / "full.onnx", load_external_data=False)
    values = (
        *made.graph.input,
        *made.graph.output,
        *made.graph.value_info,
        *made.graph.initializer,
    )
    for part in (made, made.graph, *made.graph.node, *values):
        assert not part.metadata_props, "notes of torch.onnx would be most of the file"
