"""Tests the names, arguments and constants that ONNX exports state."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.deploy.test_onnx import Model, denoise, error, schedule_of

pytestmark = pytest.mark.usefixtures("shared_captures")


class Outputs(nn.Module):
    """Returns tensors twice, an input, a weight and None; takes a number and a text."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(
        self, sample: Tensor, timestep: Tensor, text: Tensor, scale: float = 1.0, name: str = ""
    ) -> dict[str, Any]:
        inner = self.first(sample + text).tanh() * timestep * scale
        output = sample + self.second(inner)
        again = {"same": output, "input": sample, "weight": self.second.bias}
        return {"sample": output, "nothing": None, "sum": output.sum(-1), "again": again}


@torch.no_grad()
def test_results_and_arguments_have_names(tmp_path):
    model = fxcache.optimize(Outputs().eval(), fxcache.Uniform(2), cut="second")
    sample, text = torch.randn(2, 8), torch.randn(2, 8)
    given = {"timestep": torch.tensor(3.0), "text": text, "scale": 0.5, "name": "a"}
    with fxcache.session(model, num_steps=2):
        expected = [model(sample, **given) for _ in range(2)]
    folder = fxcache.export_onnx(model, tmp_path / "onnx", 2)
    schedule = schedule_of(folder)
    assert schedule["arguments"] == {"scale": 0.5, "name": "a"}
    full, skip = schedule["graphs"]["full"], schedule["graphs"]["cached_skip"]
    same = ["output_again_same", "output_again_input", "output_again_weight"]
    results = ["output_sample", "output_sum", *same]
    assert [(value["name"], value["role"]) for value in full["outputs"]] == [
        *((name, "result") for name in results),
        ("cached_0", "cached"),
    ]
    assert [value["name"] for value in full["inputs"]] == ["sample", "timestep", "text"]
    assert [value["name"] for value in skip["inputs"]] == ["sample", "cached_0"]
    sessions = [onnxruntime.InferenceSession(folder / graph["file"]) for graph in (full, skip)]
    feeds = {"sample": sample.numpy(), "text": text.numpy(), "timestep": np.array(3, np.float32)}
    *first, cached = sessions[0].run([*results, "cached_0"], feeds)
    second = sessions[1].run(results, {"sample": sample.numpy(), "cached_0": cached})
    for found, wanted in zip((first, second), expected, strict=True):
        tensors = [wanted["sample"], wanted["sum"], *wanted["again"].values()]
        for value, tensor in zip(found, tensors, strict=True):
            assert error(torch.from_numpy(value), tensor) < 1e-6


class Squeezing(Outputs):
    """Squeezes a dimension that is not 1, which PyTorch ignores; has a weight named ``output``."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.rand(8, 8))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:  # type: ignore[override]
        inner = self.first(sample).squeeze(1).tanh() * timestep
        return sample @ self.output + self.second(inner)


@torch.no_grad()
def test_idle_squeezes_and_names_that_clash(tmp_path):
    model = fxcache.optimize(Squeezing().eval(), fxcache.Uniform(2), cut="second")
    sample = torch.randn(2, 8)
    expected = model(sample, torch.tensor(3.0))
    exported = Model(fxcache.export_onnx(model, tmp_path / "onnx", 2), 2)
    found = exported(0, sample.numpy(), 3, {}, {})
    assert error(torch.from_numpy(found), expected) < 1e-6


MASK = np.array([True, True, False])


class Masked(nn.Module):
    """Reads the length of a mask, as models with padded prompts do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, sample: Tensor, timestep: Tensor, mask: Tensor) -> Tensor:
        kept = int(mask.sum())
        return sample + self.second(self.first(sample).tanh() * timestep * kept)


@pytest.fixture
@torch.no_grad()
def masked(tmp_path: Path) -> Path:
    """An export whose graphs hold for one mask."""
    model = fxcache.optimize(Masked().eval(), fxcache.Uniform(2), cut="second")
    model(torch.randn(2, 8), torch.tensor(3.0), torch.from_numpy(MASK))
    return fxcache.export_onnx(model, tmp_path / "onnx", 2)


def test_values_that_a_graph_holds_for_are_stated(masked):
    digest = hashlib.sha256(MASK.tobytes()).hexdigest()
    stated = {"dtype": "bool", "shape": [3], "sha256": digest}
    assert schedule_of(masked)["constants"] == {"mask": stated}


def test_the_example_takes_no_other_values(masked):
    model, latents = Model(masked, 2), np.zeros([2, 8], np.float32)
    assert denoise(model, latents, {"mask": MASK}, None).shape == (2, 8)
    others = ~MASK, MASK.astype("uint8"), MASK[None]
    for inputs in (*({"mask": other} for other in others), {}):
        with pytest.raises(SystemExit, match="hold only for the mask of the export"):
            denoise(model, latents, inputs, None)
