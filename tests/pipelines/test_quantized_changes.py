"""Tests changes of quantised models between runs, and copies."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.pipelines.quantizers import (
    BITSANDBYTES,
    FLOAT8,
    GGUF_Q8,
    INT8,
    KINDS,
    dit,
    layers,
    quantized,
    rarely,
)
from tests.plain import denoised

EVERY = fxcache.Uniform(1)
pytestmark = pytest.mark.usefixtures("wide_dit")
most_kinds = pytest.mark.parametrize("quantize", rarely(KINDS))


def plain_tensors(weight: Any) -> Iterator[Tensor]:
    """The tensors that a wrapper consists of; the tensor itself if it is none."""
    if not hasattr(weight, "__tensor_flatten__"):
        yield weight
        return
    for name in weight.__tensor_flatten__()[0]:
        yield from plain_tensors(getattr(weight, name))


@most_kinds
def test_a_model_quantised_between_runs(quantize):
    expected = denoised(quantized(quantize))
    model = fxcache.optimize(dit(), EVERY)
    before = denoised(model)
    give_layers(model, quantized(quantize))
    assert torch.equal(denoised(model), expected)
    give_layers(model, dit())
    assert torch.equal(denoised(model), before)


def give_layers(model: nn.Module, donor: nn.Module) -> None:
    """Replace the linear layers of ``model`` by those of ``donor``."""
    for path, module in dit().named_modules():
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, donor.get_submodule(path))


@pytest.mark.parametrize("quantize", rarely([INT8, GGUF_Q8], keep=[INT8]))
def test_a_model_quantised_in_place_between_runs(quantize):
    expected = denoised(quantized(quantize))
    model = fxcache.optimize(dit(), EVERY)
    denoised(model)
    quantize(model)
    assert torch.equal(denoised(model), expected)


@pytest.mark.parametrize("quantize", rarely(KINDS, keep=[INT8]))
def test_weights_replaced_by_others_of_the_same_kind(quantize):
    donor = quantized(quantize, scale=1.5)
    expected = denoised(donor)
    model = fxcache.optimize(quantized(quantize), EVERY)
    denoised(model)
    for module, other in zip(model.modules(), donor.modules(), strict=True):
        for name, parameter in other._parameters.items():
            module._parameters[name] = parameter
    assert torch.equal(denoised(model), expected)


def test_another_kind_of_the_same_shape_and_dtype():
    expected = denoised(quantized(*FLOAT8.values))
    model = fxcache.optimize(quantized(*INT8.values), EVERY)
    denoised(model)
    donor = quantized(*FLOAT8.values)
    for module, other in zip(model.modules(), donor.modules(), strict=True):
        module._parameters.update(other._parameters)
    assert torch.equal(denoised(model), expected)


@pytest.mark.parametrize("quantize", rarely([k for k in KINDS if k.id != "gguf-bf16"], [FLOAT8]))
def test_scales_written_in_place(quantize):
    model = fxcache.optimize(quantized(quantize), EVERY)
    before = denoised(model)
    with torch.no_grad():
        for parameter in list(model.parameters()):
            for tensor in plain_tensors(parameter):
                if tensor.dtype is torch.float32:
                    tensor.mul_(1.25)
    after = denoised(model)
    assert not torch.equal(after, before)
    fxcache.restore(model)
    assert torch.equal(denoised(model), after)


@pytest.mark.parametrize("quantize", [GGUF_Q8, *BITSANDBYTES])
def test_data_assigned_between_runs(quantize):
    model = fxcache.optimize(quantized(quantize), EVERY)
    before = denoised(model)
    for layer in layers(model):
        if type(layer.weight) is not nn.Parameter:
            layer.weight.data = layer.weight.data.flip(0).clone()
    after = denoised(model)
    assert not torch.equal(after, before)
    fxcache.restore(model)
    assert torch.equal(denoised(model), after)


# diffusers cannot make deep copies of GGUF weights, nor optimum-quanto of its own.
DEEP = [kind for kind in KINDS if not kind.id.startswith(("gguf", "quanto"))]


@pytest.mark.parametrize(
    ("duplicate", "quantize"),
    [
        pytest.param(
            duplicate, *kind.values, id=f"{duplicate.__name__}-{kind.id}", marks=kind.marks
        )
        for duplicate, kinds in (
            (copy.deepcopy, rarely(DEEP, keep=[FLOAT8])),
            (copy.copy, rarely(KINDS, keep=[])),
        )
        for kind in kinds
    ],
)
def test_a_copy(duplicate, quantize):
    model = quantized(quantize)
    expected = denoised(model)
    other = duplicate(fxcache.optimize(model, EVERY))
    assert torch.equal(denoised(other), expected)
    assert torch.equal(denoised(model), expected)
    fxcache.restore(other)
    assert torch.equal(denoised(other), expected)
