"""Tests objects with tensors that a model returns, and which objects count as state."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import fxcache
from fxcache.contents import is_state_class
from tests.plain import WIDTH, DiT, dit_inputs
from tests.runtime.memories import Filled, Layer, Layered, WithMemory


def first_inputs() -> dict[str, Any]:
    return dit_inputs() | {"timestep": torch.tensor(900.0)}


class Returning(DiT):
    """Returns its result and a new object with keys, as models that edit images do."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(WIDTH, WIDTH)

    def forward(self, sample, timestep, text):
        layers = Layered([Layer(), Layer()])
        layers.layers[1].keys = torch.tanh(self.key(self.embed(sample).mean(1, keepdim=True)))
        return {"sample": super().forward(sample, timestep, text), "layers": layers, "text": text}


@torch.no_grad()
def test_a_returned_object_is_exact():
    torch.manual_seed(0)
    model: Any = Returning().eval()
    inputs = first_inputs()
    plain = model(**inputs)
    result = fxcache.optimize(model, fxcache.Uniform(1))(**inputs)
    assert torch.equal(result["sample"], plain["sample"])
    empty, filled = result["layers"].layers
    assert type(result["layers"]) is Layered
    assert empty.keys is None
    assert torch.equal(filled.keys, plain["layers"].layers[1].keys)


@torch.no_grad()
def test_a_returned_object_is_new_at_each_call():
    model = fxcache.optimize(Returning().eval(), fxcache.Uniform(3))
    inputs = first_inputs()
    first: Any = model(**inputs)["layers"]
    assert first.layers[1].keys is not None
    kept = first.layers[1].keys.clone()
    second = model(**{**inputs, "sample": inputs["sample"] + 1, "timestep": inputs["timestep"] - 1})
    assert second["layers"] is not first
    assert torch.equal(first.layers[1].keys, kept)
    assert not torch.equal(second["layers"].layers[1].keys, kept)


@torch.no_grad()
def test_a_state_object_that_is_returned_is_the_callers():
    class Same(WithMemory):
        def forward(self, sample, timestep, text, memory):  # type: ignore[override]
            return super().forward(sample, timestep, text, memory), memory

    model = fxcache.optimize(Same(lambda memory, seen: memory.use(seen)).eval(), fxcache.Uniform(1))
    memory = Filled()
    _, returned = model(**first_inputs(), memory=memory)
    assert returned is memory
    assert memory.filled


def test_an_artifact_of_a_model_that_returns_objects_is_refused(tmp_path):
    model = fxcache.optimize(Returning().eval())
    with torch.no_grad():
        model(**first_inputs())
    for export in (fxcache.export, partial(fxcache.export_onnx, num_steps=4)):
        with pytest.raises(fxcache.ArtifactError, match="results with objects"):
            export(model, tmp_path / "folder")


def test_classes_whose_instances_torch_makes_hold_more_than_attributes():
    """An instance that C++ has not initialised would end the process when it is examined."""

    class Plain:
        """Holds nothing but its attributes."""

    assert is_state_class(Plain)
    assert not is_state_class(torch._C.ScriptModule)
    assert not is_state_class(torch._C._TensorBase)
