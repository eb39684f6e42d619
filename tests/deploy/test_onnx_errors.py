"""Tests what ONNX export refuses: each error names the cause, and leaves no file."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.deploy.test_round_trip import STEPS, denoised
from tests.plain import dit

pytestmark = pytest.mark.usefixtures("shared_captures")

INT8 = fxcache.CacheConfig(dtype=torch.int8)
KERNELS = fxcache.CacheConfig(kernels=True)


@pytest.fixture
def optimised() -> Any:
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    denoised(model)
    return model


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"policy": fxcache.FirstBlock(0.3)}, "FirstBlock decides by values"),
        ({"policy": fxcache.TaylorSeer(3)}, "a forecast or a correction has coefficients"),
        ({"policy": fxcache.Uniform(3), "cache": INT8}, "a cache in torch.int8 is encoded"),
        ({"policy": fxcache.Uniform(3), "cache": KERNELS}, "operators of fxcache"),
    ],
)
def test_options_that_onnx_cannot_express_are_named(options, cause, tmp_path):
    model = fxcache.optimize(dit(2), **options)
    denoised(model)
    with pytest.raises(fxcache.ArtifactError, match=cause) as caught:
        fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    assert caught.value.where == "fxcache.export_onnx"
    assert not list(tmp_path.iterdir())


@torch.library.custom_op("fxcache_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """Calls an operator of another library."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample + self.second(twice(self.first(sample)) * timestep)


class Regions(Foreign):
    """Computes a part under autocast, which is a region of the graph."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            inner = self.first(sample)
        return sample + self.second(inner.float().tanh() * timestep)


class Empty(Foreign):
    """Attends to no token at all, for which torch.onnx makes a graph that is not valid."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        inner = self.first(sample)[None, None] * timestep
        none = inner[:, :, :0]
        attended = nn.functional.scaled_dot_product_attention(inner, none, none)
        return sample + self.second(attended[0, 0] + inner[0, 0])


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (Foreign, r"cannot translate fxcache_tests\.twice\.default of Foreign"),
        (Empty, "made a graph of Empty that is not valid"),
        (Regions, "the graph of Regions has a region of its own"),
    ],
)
def test_parts_of_a_model_that_onnx_lacks_are_named(kind, cause, tmp_path):
    model = fxcache.optimize(kind().eval(), fxcache.Uniform(2), cut="second")
    model(torch.randn(2, 8), torch.tensor(3.0))
    with pytest.raises(fxcache.ArtifactError, match=cause) as caught:
        fxcache.export_onnx(model, tmp_path / "onnx", 2)
    assert "\x1b" not in str(caught.value)
    assert not list(tmp_path.iterdir())


class Outer(nn.Module):
    """Multiplies with the timestep, a number or a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample + self.second(self.first(sample).tanh() * timestep)


@torch.no_grad()
def test_timesteps_that_are_numbers_are_refused(tmp_path):
    model = fxcache.optimize(Outer().eval(), fxcache.Uniform(2), cut="second")
    model(torch.randn(2, 8), 3.0)
    with pytest.raises(fxcache.ArtifactError, match="a timestep that is a Python number"):
        fxcache.export_onnx(model, tmp_path / "onnx", 2)


def test_a_model_must_have_served_one_kind_of_call(tmp_path):
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    with pytest.raises(fxcache.ArtifactError, match="served 0 kinds of calls"):
        fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    denoised(model, batch=1)
    denoised(model, batch=2)
    with pytest.raises(fxcache.ArtifactError, match="served 2 kinds of calls"):
        fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    with pytest.raises(fxcache.StateError, match="DiT is not optimised"):
        fxcache.export_onnx(dit(2), tmp_path / "onnx", STEPS)


@pytest.mark.parametrize("num_steps", [0, -1, True, 2.5, [], [4, 0]])
def test_lengths_of_runs_are_checked(optimised, num_steps, tmp_path):
    with pytest.raises(fxcache.ConfigError, match="names no length of a run"):
        fxcache.export_onnx(optimised, tmp_path / "onnx", num_steps)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(optimised, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(fxcache.ModelFileError, match=r"pip install 'fxcache\[onnx\]'"):
        fxcache.export_onnx(optimised, tmp_path / "onnx", STEPS)


def test_only_onnx_exports_are_replaced(optimised, tmp_path):
    folder = fxcache.export_onnx(optimised, tmp_path / "onnx", STEPS)
    (folder / "left.over").write_text("")
    fxcache.export_onnx(optimised, folder, STEPS)
    assert not (folder / "left.over").exists()
    artifact = fxcache.export(optimised, tmp_path / "artifact")
    for export, target in ((fxcache.export, folder), (fxcache.export_onnx, artifact)):
        arguments: Any = (STEPS,) if export is fxcache.export_onnx else ()
        with pytest.raises(fxcache.ModelFileError, match="holds no artifact"):
            export(optimised, target, *arguments)
