"""Tests dynamic sizes: one capture serves several, unless the model fixes a size."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from tests import tiny
from tests.engines import num_captures
from tests.loops import refreshes, sample
from tests.plain import DiT, dit, dit_inputs

BATCH = {"sample": (0,), "text": (0,)}


@torch.no_grad()
def test_one_capture_serves_every_batch():
    model = fxcache.optimize(
        dit(), policy=fxcache.Uniform(interval=3), capture=fxcache.CaptureConfig(dynamic=BATCH)
    )
    for batch in (2, 3, 5, 2):
        inputs = dit_inputs(batch)
        for index, t in enumerate(torch.linspace(900, 100, 5)):
            got = model(timestep=t, **inputs)
            assert got.shape == inputs["sample"].shape
            if index % 3 == 0:
                assert torch.equal(got, dit()(timestep=t, **inputs))
    assert num_captures(model) == 1
    assert refreshes(model) == [[0, 3]] * 4


@torch.no_grad()
def test_reuse_equals_that_of_a_capture_for_one_batch_alone():
    policy = fxcache.Uniform(interval=3)
    dynamic = fxcache.optimize(dit(), policy=policy, capture=fxcache.CaptureConfig(dynamic=BATCH))
    dynamic(timestep=1, **dit_inputs(4))
    fixed = fxcache.optimize(dit(), policy=policy)
    inputs = dit_inputs(2)
    for t in torch.linspace(900, 100, 5):
        assert torch.equal(dynamic(timestep=t, **inputs), fixed(timestep=t, **inputs))


@torch.no_grad()
def test_a_batch_of_one_and_unequal_batches_get_separate_captures():
    model = fxcache.optimize(dit(), capture=fxcache.CaptureConfig(dynamic=BATCH))
    model(timestep=3, **dit_inputs(2))
    model(timestep=3, **dit_inputs(1))
    assert num_captures(model) == 2
    unequal = {"sample": dit_inputs(2)["sample"], "text": dit_inputs(1)["text"]}
    assert torch.equal(model(timestep=3, **unequal), dit()(timestep=torch.tensor(3), **unequal))
    assert num_captures(model) == 3


class Fixing(DiT):
    """Turns its batch size into a Python number."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(sample, timestep, text) * len(sample)


@torch.no_grad()
def test_a_size_that_the_model_fixes_is_named():
    model = fxcache.optimize(Fixing().eval(), capture=fxcache.CaptureConfig(dynamic=BATCH))
    with pytest.warns(fxcache.FxcacheWarning, match="fixes sizes.*: sample, dimension 0: 2"):
        model(timestep=1.0, **dit_inputs(2))
    assert "fixes sizes" in "".join(fxcache.report(model).notices)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:the model fixes sizes")
def test_a_model_that_fixes_its_batch_is_captured_for_each_batch():
    model = fxcache.optimize(Fixing().eval(), capture=fxcache.CaptureConfig(dynamic=BATCH))
    for batch in (2, 3, 2, 3):
        inputs = dit_inputs(batch)
        got = model(timestep=float(9 - batch), **inputs)
        assert torch.equal(got, Fixing().eval()(timestep=torch.tensor(9.0 - batch), **inputs))
    assert num_captures(model) == 2


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:the model fixes sizes")
def test_a_model_that_fixes_its_batch_can_be_exported(tmp_path):
    model = fxcache.optimize(Fixing().eval(), capture=fxcache.CaptureConfig(dynamic=BATCH))
    timestep = torch.tensor(1.0)
    for batch in (2, 3):
        model(timestep=timestep, **dit_inputs(batch))
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for batch in (2, 3):
        inputs = dit_inputs(batch)
        expected = Fixing().eval()(timestep=timestep, **inputs)
        assert torch.equal(loaded(timestep=timestep, **inputs), expected)
    with pytest.raises(fxcache.ArtifactError):
        loaded(timestep=timestep, **dit_inputs(4))


@torch.no_grad()
def test_a_changed_batch_refreshes():
    """It refreshes although the text stays the same."""
    model = fxcache.optimize(
        dit(),
        policy=fxcache.Uniform(interval=9),
        capture=fxcache.CaptureConfig(dynamic={"sample": (0,)}),
    )
    text = dit_inputs(1)["text"]
    with fxcache.session(model, key="request"):
        for timestep, batch in ((900, 2), (800, 2), (700, 3)):
            sample = dit_inputs(batch)["sample"]
            got = model(sample, timestep, text)
    assert torch.equal(got, dit()(sample, torch.tensor(700), text))
    assert num_captures(model) == 1
    assert refreshes(model) == [[0, 2]]


def test_a_unets_batch_and_size():
    sizes = {"sample": (0, 2, 3), "encoder_hidden_states": (0,)}
    unet = fxcache.optimize(
        tiny.small_unet(),
        policy=fxcache.Uniform(interval=3),
        capture=fxcache.CaptureConfig(dynamic=sizes),
    )
    for batch, size in ((2, 16), (3, 24)):
        inputs = tiny.inputs(batch, size)
        fixed = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=3))
        assert torch.equal(sample(unet, 4, **inputs), sample(fixed, 4, **inputs))
    assert num_captures(unet) == 1
    cut = fxcache.report(unet).captures[0].cut
    static = fxcache.list_cuts(tiny.small_unet(), **tiny.inputs(2, 16), timestep=torch.tensor(1))
    assert cut["full_flops"] == static[0].full_flops
    assert cut["reuse_flops"] == static[0].reuse_flops
    assert cut["cache_bytes"] == static[0].cache_bytes


@pytest.mark.parametrize(
    "dynamic", [{"nothing": (0,)}, {"sample": ("batch",)}, {"sample": 0}, ["sample"], {0: (0,)}]
)
def test_wrong_options_are_refused(dynamic: Any):
    with pytest.raises(fxcache.ConfigError, match=r"CaptureConfig\(dynamic=...\)"):
        fxcache.optimize(dit(), capture=fxcache.CaptureConfig(dynamic=dynamic))
