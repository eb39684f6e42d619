"""Tests the implementation of attention that a model, or its caller, chooses."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel

import fxcache
from tests.engines import num_captures, variants_of
from tests.runtime.hooked import wan

EVERY = fxcache.Uniform(1)
MATH = SDPBackend.MATH
ANY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, MATH]
UNKNOWN_CALLER = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")


class Attention(nn.Module):
    """Its result is a view of attention's, if the implementation's strides allow it."""

    chosen: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        batch, words, _ = x.shape
        query, key, value = self.qkv(x).view(batch, words, 3, 2, 8).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.chosen) if self.chosen else contextlib.nullcontext():
            found = F.scaled_dot_product_attention(query, key, value, scale=0.5)
        return found.transpose(1, 2).reshape(batch, words, 16)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Attention() for _ in range(4))
        self.last = nn.Linear(16, 16)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        for layer in self.layers:
            sample = sample + layer(sample * timestep)
        found: Tensor = self.last(sample)
        return found


def choosing(kind: Any, layer: int = 1) -> Denoiser:
    """Return a model of which one layer chooses."""
    model = Denoiser().eval()
    model.layers[layer].chosen = kind
    return model


def calls(*models: Any, steps: int = 3) -> Iterator[list[Tensor]]:
    """Yield the results of the models for several steps."""
    for step in range(steps):
        sample = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            yield [model(sample, torch.tensor(1.0 - 0.1 * step)) for model in models]


def differ() -> bool:
    """Return whether the implementations differ for these models. Else nothing is tested."""
    ((first, second),) = calls(Denoiser().eval(), choosing(MATH), steps=1)
    return not torch.equal(first, second)


@UNKNOWN_CALLER
@pytest.mark.parametrize("kind", [MATH, ANY, [MATH, SDPBackend.FLASH_ATTENTION]])
def test_a_layer_that_chooses_is_exact(kind):
    assert differ()
    model = fxcache.optimize(choosing(kind), EVERY)
    for found, expected in calls(model, choosing(kind)):
        assert torch.equal(found, expected)


class TorchsAttention(Attention):
    """Calls torch's layer, which calls attention out of sight of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        with sdpa_kernel(self.chosen) if self.chosen else contextlib.nullcontext():
            found: Tensor = self.layer(x, x, x, need_weights=False)[0]
        return found


def with_torchs(kind: Any) -> Denoiser:
    """Return a model with torch's layers, of which one is told what to choose."""
    model = Denoiser()
    torch.manual_seed(1)
    model.layers = nn.ModuleList(TorchsAttention() for _ in range(4))
    model.layers[1].chosen = kind
    return model.eval()


@UNKNOWN_CALLER
def test_a_choice_around_torchs_own_layer_is_exact(monkeypatch):
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    (first, second), *_ = calls(with_torchs(None), with_torchs(MATH))
    assert not torch.equal(first, second)
    model = fxcache.optimize(with_torchs(MATH), EVERY)
    for found, expected in calls(model, with_torchs(MATH)):
        assert torch.equal(found, expected)


@UNKNOWN_CALLER
def test_a_caller_that_chooses_is_exact():
    model, plain = fxcache.optimize(Denoiser().eval(), EVERY), Denoiser().eval()
    for _ in range(2):
        for found, expected in calls(model, plain):
            assert torch.equal(found, expected)
        with sdpa_kernel(MATH):
            for found, expected in calls(model, plain):
                assert torch.equal(found, expected)
    assert num_captures(model) == 2


@UNKNOWN_CALLER
def test_a_choice_that_changes_between_calls_is_exact():
    model, plain = fxcache.optimize(Denoiser().eval(), EVERY), Denoiser().eval()
    for kind in (None, MATH, None):
        for one in (model, plain):
            layer: Any = one.get_submodule("layers.2")
            layer.chosen = kind
        for found, expected in calls(model, plain):
            assert torch.equal(found, expected)


@UNKNOWN_CALLER
def test_a_backend_of_diffusers_is_exact():
    model, plain = fxcache.optimize(wan(), EVERY), wan()
    sample, text = torch.randn(1, 4, 4, 4, 4), torch.randn(1, 7, 16)
    for backend in ("native", "_native_math", "native"):
        for one in (model, plain):
            one.set_attention_backend(backend)
        for step in (900, 500):
            with torch.no_grad():
                given = sample, torch.tensor([step]), text
                found, expected = (one(*given, return_dict=False)[0] for one in (model, plain))
            assert torch.equal(found, expected)


@pytest.mark.usefixtures("clean_dynamo")
def test_a_choice_is_compiled():
    counter = CompileCounterWithBackend("aot_eager")
    model = fxcache.optimize(choosing(MATH, 3), fxcache.Uniform(2), cut="layers.1.qkv")
    eager = fxcache.optimize(choosing(MATH, 3), fxcache.Uniform(2), cut="layers.1.qkv")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with fxcache.session(model, num_steps=4), fxcache.session(eager, num_steps=4):
        for found, expected in calls(compiled, eager, steps=4):
            torch.testing.assert_close(found, expected)
    assert counter.frame_count == 2


@UNKNOWN_CALLER
def test_a_choice_counts_flops_and_no_artifact_can_hold_it(tmp_path):
    plain = fxcache.optimize(Denoiser().eval(), EVERY)
    model = fxcache.optimize(choosing(MATH), EVERY)
    list(calls(plain, model, steps=1))
    assert variants_of(model).full_flops == variants_of(plain).full_flops
    with pytest.raises(fxcache.ArtifactError, match=r"fxcache\.scaled_dot_product_attention"):
        fxcache.export(model, tmp_path / "artifact")
