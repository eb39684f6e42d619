"""Tests that a loaded model gives the bits of the exported one, with every option."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import fxcache
from fxcache.program import value_of
from tests import tiny
from tests.engines import optimized_engine, variants_of
from tests.loops import refreshes, sample
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 8
ALPHAS = tuple(1 - i / (2 * STEPS) for i in range(STEPS))
CUTS: list[Any] = [f"layers.{i}.{part}" for i in range(3) for part in ("out", "mlp")]
BATCH = {"sample": (0,), "text": (0,)}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "Uniform": {"policy": fxcache.Uniform(3)},
    "NonUniform": {"policy": fxcache.NonUniform(3, center=0.2, power=1.2)},
    "Explicit": {"policy": fxcache.Explicit((0, 3, 4))},
    "TaylorSeer": {"policy": fxcache.TaylorSeer(3, order=2)},
    "TeaCache": {"policy": fxcache.TeaCache(0.3, coefficients=(1.0, 0.0))},
    "FirstBlock": {"policy": fxcache.FirstBlock(0.3)},
    "Hermite": {"policy": fxcache.Uniform(3), "forecast": fxcache.Hermite(order=2)},
    "many points": {"policy": fxcache.Uniform(3), "cut": CUTS},
    "int8": {"policy": fxcache.Uniform(3), "cache": fxcache.CacheConfig(dtype=torch.int8)},
    "float8": {"policy": fxcache.Uniform(3)}
    | {"cache": fxcache.CacheConfig(dtype=torch.float8_e4m3fn)},
    "partial": {"policy": fxcache.Uniform(3)}
    | {"cache": fxcache.CacheConfig(partial_evaluation=True)},
    "hoist=None": {"hoist": None},
    "table": {"hoist": "table"},
    "table and TeaCache": {"hoist": "table"}
    | {"policy": fxcache.TeaCache(0.3, coefficients=(1.0, 0.0))},
    "any batch": {"capture": fxcache.CaptureConfig(dynamic=BATCH)},
}


@torch.no_grad()
def denoised(model: Callable[..., Any], seed: int = 0, batch: int = 2) -> list[Tensor]:
    """Return the latent after each step of a loop."""
    inputs, latents = dit_inputs(batch, seed), []
    latent = inputs["sample"]
    for t in torch.linspace(900, 100, STEPS):
        latent = latent - 0.1 * model(latent, t, inputs["text"])
        latents.append(latent)
    return latents


@pytest.mark.sweep(8)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_loaded_model_gives_the_bits_of_the_exported_one(options, tmp_path):
    model = fxcache.optimize(dit(), **options)
    expected = denoised(model), denoised(model, seed=1)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    found = denoised(loaded), denoised(loaded, seed=1)
    assert all(all(map(torch.equal, a, b)) for a, b in zip(found, expected, strict=True))
    assert refreshes(loaded) == refreshes(model)
    assert 0 < len(refreshes(loaded)[0]) < STEPS
    (exported,), (read,) = fxcache.report(model).captures, fxcache.report(loaded).captures
    assert (read.cut, read.groups, read.reason) == (exported.cut, exported.groups, exported.reason)
    assert optimized_engine(loaded).settings == optimized_engine(model).settings


def test_a_batch_that_may_vary_still_may(tmp_path):
    model = fxcache.optimize(dit(), capture=fxcache.CaptureConfig(dynamic=BATCH))
    denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for batch in (3, 5):
        assert all(map(torch.equal, denoised(loaded, batch=batch), denoised(model, batch=batch)))


def test_every_value_of_the_graph_has_its_shape_again(tmp_path):
    unet = fxcache.optimize(tiny.small_unet().to(memory_format=torch.channels_last))
    sample(unet, 3, **tiny.inputs())
    loaded: Any = fxcache.load(fxcache.export(unet, tmp_path / "artifact"))
    sample(loaded, 3, **tiny.inputs())
    pairs = zip(
        variants_of(unet).program.graph.nodes, variants_of(loaded).program.graph.nodes, strict=True
    )
    for node, other in pairs:
        value, read = value_of(node), value_of(other)
        assert (node.op, node.name, str(node.target)) == (other.op, other.name, str(other.target))
        if isinstance(value, Tensor):
            assert (value.shape, value.dtype) == (read.shape, read.dtype), node
            assert value.stride() == read.stride(), node
    weights = dict(unet.named_parameters())
    for name, weight in loaded.named_parameters():
        assert torch.equal(weight, weights[name])
        assert weight.stride() == weights[name].stride()


@pytest.mark.usefixtures("clean_dynamo")
def test_a_loaded_model_compiles_to_two_graphs(tmp_path):
    model = fxcache.optimize(dit(), fxcache.Uniform(3), hoist=None)
    expected = denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    counter = CompileCounter()
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = denoised(torch.compile(loaded, backend=counter))
    assert all(map(torch.equal, found, expected))
    assert counter.frame_count == 2


def test_outputs_are_plain_containers(tmp_path):
    unet = fxcache.optimize(tiny.small_unet())
    inputs = {"timestep": torch.tensor(9), **tiny.inputs()}
    with torch.no_grad():
        output, (tensor,) = unet(**inputs), unet(**inputs, return_dict=False)
    loaded = fxcache.load(fxcache.export(unet, tmp_path / "artifact"))
    with torch.no_grad():
        found, alone = loaded(**inputs), loaded(**inputs, return_dict=False)
    assert torch.equal(found.sample, output.sample)
    assert found[0] is found.sample
    assert type(found).__mro__[1] is tuple
    assert type(alone) is tuple
    assert torch.equal(alone[0], tensor)


def test_a_restored_model_computes_everything(tmp_path):
    model = fxcache.optimize(dit(), fxcache.Uniform(3))
    denoised(model)
    loaded: Any = fxcache.restore(fxcache.load(fxcache.export(model, tmp_path / "artifact")))
    assert torch.equal(denoised(loaded)[-1], denoised(dit())[-1])
    weight, twice = loaded.head.weight, nn.Parameter(2 * loaded.head.weight.detach())
    loaded.head.weight, doubled = twice, dit()
    doubled.head.weight = twice
    assert torch.equal(denoised(loaded)[-1], denoised(doubled)[-1]), (
        "it reads the weights it has now"
    )
    loaded.head.weight = weight
    fxcache.optimize(loaded, fxcache.Uniform(2))
    other = denoised(fxcache.optimize(dit(), fxcache.Uniform(2)))
    assert torch.equal(denoised(loaded)[-1], other[-1])


def test_weights_of_the_caller_are_used_without_a_copy(tmp_path):
    model = fxcache.optimize(dit())
    expected = denoised(model)
    folder = fxcache.export(model, tmp_path / "artifact", weights=False)
    assert not list(folder.glob("*.safetensors"))
    with pytest.raises(fxcache.ArtifactError, match="without its weights"):
        fxcache.load(folder)
    weights = dit().state_dict()
    loaded = fxcache.load(folder, weights=weights)
    assert torch.equal(denoised(loaded)[-1], expected[-1])
    assert loaded.get_parameter("head.weight").data_ptr() == weights["head.weight"].data_ptr()
    del weights["head.weight"]
    with pytest.raises(fxcache.ArtifactError, match=r"lack head.weight"):
        fxcache.load(folder, weights=weights)
    with pytest.raises(fxcache.ArtifactError, match="shape"):
        fxcache.load(folder, weights=dit().state_dict() | {"head.weight": torch.zeros(3, 3)})


def test_graphs_hold_the_weights_of_the_model_and_no_others(tmp_path):
    """Otherwise a model that moves to a GPU would leave its weights behind, and be there twice."""
    model = fxcache.optimize(dit())
    denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for each in (loaded, copy.deepcopy(loaded)):
        denoised(each)
        held = variants_of(each).program.weights
        assert all(held[name] is weight for name, weight in each.named_parameters())


class Tied(nn.Module):
    """Uses one weight under two names, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        inner = self.first(sample).tanh() * timestep
        return sample + self.second(inner) + torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_tied_weights_are_stored_once(tmp_path):
    model = fxcache.optimize(Tied().eval(), fxcache.Uniform(2), cut="second")
    sample = torch.randn(2, 4)
    with torch.no_grad():
        expected = model(sample, torch.tensor(3.0))
    folder = fxcache.export(model, tmp_path / "artifact")
    loaded = fxcache.load(folder)
    with torch.no_grad():
        assert torch.equal(loaded(sample, torch.tensor(3.0)), expected)
    assert loaded.get_parameter("first.weight") is not None
    first, second = (loaded.get_parameter(f"{n}.weight") for n in ("first", "second"))
    assert first.data_ptr() == second.data_ptr()


@torch.no_grad()
def test_a_model_loads_on_another_device(tmp_path):
    """A graph names the model's device, not its type. Tensors on meta have no values."""
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3))
    inputs = {"timestep": torch.tensor(9), **tiny.inputs()}
    sample = unet(**inputs).sample
    loaded: Any = fxcache.load(fxcache.export(unet, tmp_path / "artifact"), device="meta")
    on_meta = {name: value.to("meta") for name, value in inputs.items()}
    found = loaded(**on_meta).sample
    assert (found.shape, found.device.type) == (sample.shape, "meta")
    nodes = variants_of(loaded).program.graph.nodes
    assert {value_of(n).device.type for n in nodes if isinstance(value_of(n), Tensor)} == {"meta"}
    with pytest.raises(fxcache.ArtifactError, match="no graph for this call"):
        loaded(**inputs)
    with pytest.raises(fxcache.ConfigError, match="is no device"):
        fxcache.load(tmp_path / "artifact", device="abacus")


def test_what_was_never_called_has_nothing_to_export(tmp_path):
    with pytest.raises(fxcache.ArtifactError, match="has not been called"):
        fxcache.export(fxcache.optimize(dit()), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(fxcache.StateError):
        fxcache.export(dit(), tmp_path / "artifact")


def test_a_folder_with_something_else_is_not_overwritten(tmp_path):
    model = fxcache.optimize(dit())
    denoised(model)
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(fxcache.ModelFileError, match="holds no artifact"):
        fxcache.export(model, tmp_path)
    assert [file.name for file in Path(tmp_path).iterdir()] == ["thesis.txt"]
    folder = fxcache.export(model, tmp_path / "artifact")
    assert fxcache.export(model, folder) == folder
