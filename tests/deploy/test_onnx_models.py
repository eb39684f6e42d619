"""Tests ONNX exports of model classes: ``pytest -m slow tests/deploy/test_onnx_models.py``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.denoisers import RECIPES, tiny
from fxcache.signature import Signature
from tests.deploy.test_models import MODELS, steps
from tests.test_denoisers import MODELS_WARN

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_captures")]

COMPLEX, REGION = "complex-valued", "has a region of its own"
# What torch.onnx or ONNX cannot express, by the words of fxcache's error.
REFUSED_BY_ONNX = {
    "AnyFlowFARTransformer3DModel": REGION,
    "AnyFlowTransformer3DModel": COMPLEX,
    "BriaFibo2Transformer2DModel": COMPLEX,
    "ChronoEditTransformer3DModel": "not valid",
    "ErnieImageTransformer2DModel": REGION,
    "HunyuanVideoFramepackTransformer3DModel": "cannot translate",
    "Kandinsky6SRTransformer3DModel": REGION,
    "Lumina2Transformer2DModel": COMPLEX,
    "LuminaNextDiT2DModel": COMPLEX,
    "MochiTransformer3DModel": REGION,
    "NucleusMoEImageTransformer2DModel": COMPLEX,
    "QwenImage21Transformer2DModel": "repeat_interleave",
    "QwenImageTransformer2DModel": COMPLEX,
    "SanaWMTransformer3DModel": COMPLEX,
    "WanAnimateTransformer3DModel": "linalg_qr",
    "ZImageTransformer2DModel": REGION,
}
# What ONNX Runtime cannot load: it has no kernel for an operator and a dtype of ONNX.
NOT_IN_ORT = {"HunyuanVideoTransformer3DModel": "Could not find an implementation for Where"}
MOST = 5e-5  # the greatest error over the greatest value


def by_onnx(folder: Path, feeds: dict[str, Any]) -> list[Tensor]:
    """Return the first result of a refresh, and of a reuse."""
    schedule = json.loads((folder / "schedule.json").read_text())
    cache, found = dict[str, Any](), list[Tensor]()
    for name in schedule["runs"]["2"]:
        graph = schedule["graphs"][name]
        session = ort.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
        given = {
            i["name"]: cache[i["name"]] if i["role"] == "cached" else feeds[i["name"]]
            for i in graph["inputs"]
        }
        names = [output["name"] for output in graph["outputs"]]
        values = dict(zip(names, session.run(names, given), strict=True))
        cache.update({name: value for name, value in values.items() if name.startswith("cached")})
        found.append(torch.from_numpy(values[names[0]]))
    return found


def feeds_of(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    call = Signature(type(model)).call((), inputs)
    return {path: np.asarray(value) for path, value in call.by_path().items()}


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
@MODELS_WARN
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_class_runs_on_onnx_runtime(kind, tmp_path):
    recipe = RECIPES[kind]
    model: Any = tiny(recipe)
    inputs = recipe.inputs(model.config, False)
    feeds = feeds_of(model, inputs)
    fxcache.optimize(model, fxcache.Uniform(2))
    expected = [leaves[0] for leaves in steps(model, inputs)]
    if kind in REFUSED_BY_ONNX:
        with pytest.raises(fxcache.ArtifactError, match=REFUSED_BY_ONNX[kind]):
            fxcache.export_onnx(model, tmp_path / "onnx", 2)
        return
    folder = fxcache.export_onnx(model, tmp_path / "onnx", 2)
    if kind in NOT_IN_ORT:
        with pytest.raises(Exception, match=NOT_IN_ORT[kind]):
            by_onnx(folder, feeds)
        return
    for found, wanted in zip(by_onnx(folder, feeds), expected, strict=False):
        assert error(found, wanted) < MOST
