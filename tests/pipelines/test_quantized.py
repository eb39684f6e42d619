"""Tests weights that torchao quantised, which are subclasses of Tensor."""

import copy
from typing import Any

import pytest
import torch

import fxcache
from tests.pipelines.build import flux, keeps, stable_diffusion

pytest.importorskip("torchao")

MODELS = pytest.mark.parametrize("made", [stable_diffusion, flux])


def quantize(model: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())


@MODELS
def test_int8_weights(made):
    model, draw, _ = made()
    full = draw()
    quantize(model)
    assert not torch.equal(draw(), full)
    keeps(draw, model)


@MODELS
def test_quantized_between_runs(made):
    model, draw, _ = made()
    fxcache.optimize(model, policy=fxcache.Uniform(interval=1))
    draw()
    quantize(model)
    quantized = draw()
    fxcache.restore(model)
    assert torch.equal(draw(), quantized)


def test_a_copy():
    model, draw, pipe = stable_diffusion()
    quantize(model)
    plain = draw()
    pipe.unet = copy.deepcopy(fxcache.optimize(model, policy=fxcache.Uniform(interval=1)))
    assert torch.equal(draw(), plain)
