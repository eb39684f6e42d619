"""Tests artifacts and fingerprints of quantised models."""

import pytest
import torch

import fxcache
from fxcache.calibration.fingerprint import fingerprint
from tests.pipelines.quantizers import (
    FLOAT8,
    GGUF_BF16,
    GGUF_Q4,
    KINDS,
    dit,
    quantized,
    rarely,
)
from tests.plain import denoised

THIRD = fxcache.Uniform(3)
pytestmark = pytest.mark.usefixtures("wide_dit")
most_kinds = pytest.mark.parametrize("quantize", rarely(KINDS))


OF_ATEN = {"torchao-int8", "torchao-float8", "gguf-q8", "gguf-q4", "gguf-bf16"}
IN_ARTIFACTS = [kind for kind in KINDS if kind.id in OF_ATEN]
NOT_IN_ARTIFACTS = [kind for kind in KINDS if kind.id not in OF_ATEN]


@pytest.mark.parametrize("quantize", rarely(IN_ARTIFACTS, keep=[FLOAT8]))
def test_an_artifact(quantize, tmp_path):
    model = fxcache.optimize(quantized(quantize), THIRD)
    expected = denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "whole"))
    assert torch.equal(denoised(loaded), expected)
    whole = sum(file.stat().st_size for file in (tmp_path / "whole").glob("*.safetensors"))
    full = sum(parameter.nbytes for parameter in dit().parameters())
    assert whole < 0.4 * full or quantize is GGUF_BF16.values[0]
    if quantize is GGUF_Q4.values[0]:
        return  # its layers make constants, which no state dict has
    fxcache.export(model, tmp_path / "graphs", weights=False)
    loaded = fxcache.load(tmp_path / "graphs", weights=model.state_dict())
    assert torch.equal(denoised(loaded), expected)


@pytest.mark.parametrize("quantize", rarely(NOT_IN_ARTIFACTS, keep=[]))
def test_operators_that_artifacts_lack_are_refused(quantize, tmp_path):
    model = fxcache.optimize(quantized(quantize), THIRD)
    denoised(model)
    with pytest.raises(fxcache.ArtifactError, match=r"the operator (torchao|quanto|bitsandbytes)"):
        fxcache.export(model, tmp_path / "artifact")


@most_kinds
def test_a_fingerprint_changes_nothing(quantize):
    model = quantized(quantize)
    expected = denoised(model)
    found = fingerprint(model)
    assert not found.differences(fingerprint(quantized(quantize)))
    assert found.differences(fingerprint(dit()))
    assert found.differences(fingerprint(quantized(quantize, scale=1.5)))
    assert torch.equal(denoised(model), expected)
