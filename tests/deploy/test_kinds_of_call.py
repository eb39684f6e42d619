"""Tests which calls an artifact serves: shapes, sizes that may vary, values, halves of a batch."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.deploy.loaded import LoadedModel
from fxcache.runtime.optimized_class import Optimized
from tests import tiny
from tests.deploy.test_round_trip import BATCH, OPTIONS, STEPS, denoised
from tests.engines import optimized_engine
from tests.plain import DiT, dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


def test_one_artifact_serves_every_kind_of_call_that_the_model_served(tmp_path):
    model = fxcache.optimize(dit(), fxcache.Uniform(3))
    expected = [denoised(model, batch=batch)[-1] for batch in (1, 2)]
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    found = [denoised(loaded, batch=batch)[-1] for batch in (1, 2)]
    assert all(map(torch.equal, found, expected))
    with pytest.raises(fxcache.ArtifactError, match=r"no graph for this call: sample\[3, 16, 4\]"):
        denoised(loaded, batch=3)


@torch.no_grad()
def test_an_error_names_the_options_of_a_call(tmp_path):
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3))
    inputs = tiny.inputs()
    unet(timestep=torch.tensor(9), return_dict=False, **inputs)
    loaded = fxcache.load(fxcache.export(unet, tmp_path / "artifact"))
    with pytest.raises(fxcache.ArtifactError) as caught:
        loaded(timestep=torch.tensor(9), **inputs)
    assert caught.value.where.endswith("return_dict=False")
    assert "return_dict" not in caught.value.what
    assert caught.value.remedy.startswith("pass return_dict=False, as the exported calls did; or")


def test_a_size_that_may_vary_still_varies(tmp_path):
    options = OPTIONS["any batch"] | {"policy": fxcache.Uniform(3)}
    model = fxcache.optimize(dit(), **options)
    denoised(model, batch=4)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for batch in (2, 3, 4):
        alone = denoised(fxcache.optimize(dit(), fxcache.Uniform(3)), batch=batch)
        assert torch.equal(denoised(loaded, batch=batch)[-1], alone[-1])
    assert len(optimized_engine(loaded).captures) == 1
    with pytest.raises(fxcache.ArtifactError, match="no graph for this call") as caught:
        denoised(loaded, batch=1)
    assert "sample[2…" in caught.value.where


class Counting(nn.Module):
    """Its result depends on the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        hidden = self.first(sample) * timestep
        rows = (hidden + self.deep(hidden)).reshape(sample.shape[0], -1)
        found: Tensor = self.last(rows) * sample.shape[0]
        return found


@torch.no_grad()
@pytest.mark.parametrize(("called", "served"), [((1,), {1}), ((2, 1), {1, 2, 3}), ((3,), {2, 3})])
def test_a_graph_of_one_row_serves_one_row_only(called, served, tmp_path):
    """torch.export fixes a size of one, although it was to vary."""
    capture = fxcache.CaptureConfig(dynamic={"sample": (0,)})
    plain, time = Counting().eval(), torch.tensor(0.5)
    model = fxcache.optimize(Counting().eval(), fxcache.Uniform(1), cut="deep", capture=capture)
    for batch in called:
        model(torch.randn(batch, 4), time)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for batch in (1, 2, 3):
        sample = torch.randn(batch, 4)
        if batch in served:
            assert torch.equal(loaded(sample, time), plain(sample, time))
            continue
        with pytest.raises(fxcache.ArtifactError, match="no graph for this call"):
            loaded(sample, time)


@pytest.fixture
def any_batch(tmp_path: Path) -> LoadedModel:
    """A loaded model that serves any batch."""
    capture = fxcache.CaptureConfig(dynamic=BATCH, max_captures=3)
    model = fxcache.optimize(dit(), fxcache.Uniform(3), capture=capture)
    denoised(model)
    return fxcache.load(fxcache.export(model, tmp_path / "artifact"))


def test_other_settings_keep_the_options_of_the_capture(any_batch):
    fxcache.optimize(any_batch, fxcache.Uniform(2))
    for batch in (2, 3):
        alone = denoised(fxcache.optimize(dit(), fxcache.Uniform(2)), batch=batch)
        assert all(map(torch.equal, denoised(any_batch, batch=batch), alone))
    known = fxcache.CaptureConfig(dynamic=BATCH, max_captures=3)
    assert optimized_engine(any_batch).settings.capture == known
    fxcache.optimize(any_batch, capture=fxcache.CaptureConfig())
    with pytest.raises(fxcache.ArtifactError, match="no graph for this call"):
        denoised(any_batch)


def test_a_restored_model_keeps_the_options_of_the_capture(any_batch):
    model = fxcache.restore(any_batch)
    assert all(map(torch.equal, denoised(model, batch=3), denoised(dit(), batch=3)))
    inputs = {"timestep": torch.tensor(9.0), **dit_inputs()}
    assert fxcache.list_cuts(model, **inputs) == fxcache.list_cuts(dit(), **inputs)
    plan = fxcache.calibrate(model, fxcache.TeaCache, lambda: denoised(model, batch=3))
    fxcache.optimize(model, plan)
    assert torch.equal(denoised(model)[-1], denoised(fxcache.optimize(dit(), plan.policy))[-1])


@pytest.mark.sweep(1)
@pytest.mark.parametrize("optimized", [True, False])
@torch.no_grad()
def test_a_copy_has_weights_of_its_own(any_batch, optimized):
    model = any_batch if optimized else fxcache.restore(any_batch)
    expected = denoised(model)
    twin = copy.deepcopy(model)
    assert all(map(torch.equal, denoised(twin, batch=3), denoised(model, batch=3)))
    twin.get_parameter("head.weight").zero_()
    assert not torch.equal(denoised(twin)[-1], expected[-1])
    assert torch.equal(denoised(model)[-1], expected[-1])
    assert isinstance(twin, Optimized) == optimized


class Longer(nn.Module):
    """Computes something else if the latent is longer than the text."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        inner = self.second(self.first(sample).tanh() * timestep)
        factor = 2 if sample.shape[1] > text.shape[1] else 3
        return sample + factor * inner + text.mean((1, 2), keepdim=True)


def test_a_graph_serves_only_sizes_for_which_the_model_computes_the_same(tmp_path):
    dynamic = {"sample": (1,), "text": (1,)}
    model = fxcache.optimize(
        Longer().eval(),
        fxcache.Uniform(2),
        cut="second",
        capture=fxcache.CaptureConfig(dynamic=dynamic),
    )
    timestep = torch.tensor(3.0)
    sizes = [(8, 5), (9, 3)]
    inputs = [(torch.randn(2, a, 4), torch.randn(2, b, 4)) for a, b in sizes]
    with torch.no_grad():
        expected = [model(sample, timestep, text) for sample, text in inputs]
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    with torch.no_grad():
        found = [loaded(sample, timestep, text) for sample, text in inputs]
        assert all(map(torch.equal, found, expected))
        with pytest.raises(fxcache.ArtifactError, match="no graph for this call"):
            loaded(torch.randn(2, 5, 4), timestep, torch.randn(2, 8, 4))
    assert len(optimized_engine(loaded).captures) == 1


def test_guidance_exports_both_kinds_of_call(tmp_path):
    guidance = fxcache.GuidanceCache(interval=3, start=0.2, low=0, high=0)
    model = fxcache.optimize(dit(), fxcache.Uniform(3), guidance=guidance)

    @torch.no_grad()
    def guided(model: Callable[..., Any]) -> Tensor:
        half, latents = dit_inputs(1), []
        latent, text = half["sample"], torch.cat([half["text"], dit_inputs(1, 5)["text"]])
        for _ in range(2):
            latent = half["sample"]
            for t in torch.linspace(900, 100, STEPS):
                first, second = model(torch.cat([latent] * 2), t, text).chunk(2)
                latent = latent - 0.1 * (first + 2 * (second - first))
            latents.append(latent)
        return torch.stack(latents)

    expected = guided(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    assert torch.equal(guided(loaded), expected)
    assert len(optimized_engine(loaded).captures) == 2


class Reading(DiT):
    """Chooses what it computes by the values of the text."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        result = super().forward(sample, timestep, text)
        return result * 2 if bool(text.sum() > 0) else result


def test_a_graph_for_certain_values_serves_only_these(tmp_path):
    model = fxcache.optimize(Reading().eval(), fxcache.Uniform(3))
    inputs = dit_inputs()
    texts = [inputs["text"].abs(), -inputs["text"].abs()]
    timestep = torch.tensor(9.0)
    with torch.no_grad():
        expected = [model(inputs["sample"], timestep, text) for text in texts]
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    with torch.no_grad():
        found = [loaded(inputs["sample"], timestep, text) for text in texts]
        assert all(map(torch.equal, found, expected))
        with pytest.raises(fxcache.ArtifactError, match="no graph for this call"):
            loaded(inputs["sample"], timestep, 2 * texts[0])


def test_a_timestep_that_is_a_number_is_refused_by_name(tmp_path):
    model = fxcache.optimize(dit(), fxcache.Uniform(3))
    with torch.no_grad():
        model(timestep=9.0, **dit_inputs())
    with pytest.raises(fxcache.ArtifactError, match="a Python number"):
        fxcache.export(model, tmp_path / "artifact")


class Memory:
    """An object that carries a tensor."""

    def __init__(self) -> None:
        self.keys = torch.zeros(2, 5, 16)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "number": ({"timestep": 9.0}, "timestep that is a Python number.*\n  where: timestep\n"),
    "object": ({"text": Memory()}, "objects that carry tensors.*\n  where: text\n"),
    "in a list": ({"text": [Memory()]}, "objects that carry tensors.*\n  where: text.0\n"),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize(("given", "error"), REFUSED.values(), ids=REFUSED)
@torch.no_grad()
def test_a_loaded_model_refuses_numbers_and_objects_by_name(any_batch, optimized, given, error):
    model = any_batch if optimized else fxcache.restore(any_batch)
    with pytest.raises(fxcache.ArtifactError, match=error):
        model(**({"timestep": torch.tensor(9.0), **dit_inputs()} | given))
    assert all(map(torch.equal, denoised(model), denoised(model)))
