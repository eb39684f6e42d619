"""Tests models that write to their arguments, such as a dict of keys and values."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.errors import ArtifactError, CaptureError, CutError
from tests.loops import refreshes

pytestmark = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
STEPS, WIDTH, LONG = 7, 8, 6


class Causal(nn.Module):
    """Reads earlier frames from a dict of keys, and fills it if the flags say so.

    ``forward(sample [1, 2, 8], timestep, cache, flags)``. It notes in ``flags`` what it read.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        cache: list[dict[str, Tensor]],
        flags: dict[str, Any],
    ) -> Tensor:
        flags["read"] = flags["filled"]
        x = sample + timestep / 1000
        for block, layer in zip(self.blocks, cache, strict=True):
            if flags["fills"]:
                layer["keys"][:, : x.shape[1]] = x
                layer["keys"][:, -1].add_(1)
            x = x + block(x + layer["keys"][:, : flags["read"]].sum(1, keepdim=True))
        return x


def empty_cache() -> list[dict[str, Tensor]]:
    return [{"keys": torch.zeros(1, LONG, WIDTH)} for _ in range(4)]


@torch.no_grad()
def sample(model: nn.Module) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Sample two chunks. The second reads the keys of the first."""
    cache, chunks = empty_cache(), []
    for chunk in range(2):
        latent = torch.randn(1, 2, WIDTH, generator=torch.Generator().manual_seed(chunk))
        flags = {"filled": 2 * chunk, "fills": False}
        for t in torch.linspace(900, 100, STEPS):
            latent = latent - 0.1 * model(latent, t, cache, deepcopy(flags))
        model(latent, torch.tensor(0.0), cache, flags | {"fills": True})
        chunks.append(latent)
    return torch.cat(chunks), cache


def test_writes_are_those_of_the_model():
    expected, twin = sample(Causal().eval())
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1))
    found, cache = sample(model)
    assert torch.equal(found, expected)
    for layer, other in zip(cache, twin, strict=True):
        assert torch.equal(layer["keys"], other["keys"])


def test_calls_that_only_read_are_reused():
    expected, twin = sample(Causal().eval())
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(3))
    found, cache = sample(model)
    assert not torch.equal(found, expected)
    assert refreshes(model) == [[0, 3, 6], [0], [0, 3, 6], [0]]
    for layer, other in zip(cache, twin, strict=True):
        assert (layer["keys"] == other["keys"]).all(-1).any(), "its last place was counted twice"


@torch.no_grad()
def test_a_trace_does_not_write_to_the_callers_dict():
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1))
    flags = {"filled": 0, "fills": False}
    model(torch.randn(1, 2, WIDTH), torch.tensor(1.0), empty_cache(), flags)
    assert flags == {"filled": 0, "fills": False}


@torch.no_grad()
def test_arguments_that_share_memory_are_refused():
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1))
    (layer, *_), flags = empty_cache(), {"filled": 0, "fills": True}
    with pytest.raises(CaptureError, match=r"writes to cache\.0\.keys, which shares its memory"):
        model(
            torch.randn(1, 2, WIDTH),
            torch.tensor(1.0),
            [{"keys": layer["keys"].view(layer["keys"].shape)} for _ in range(4)],
            flags,
        )


@torch.no_grad()
@pytest.mark.parametrize("apart_first", [False, True])
def test_arguments_may_be_parts_of_one_buffer(apart_first):
    model, plain = fxcache.optimize(Causal().eval(), fxcache.Uniform(1)), Causal().eval()
    latent, timestep = torch.randn(1, 2, WIDTH), torch.tensor(1.0)
    if apart_first:
        model(latent, timestep, empty_cache(), {"filled": 0, "fills": True})
    buffers = [torch.zeros(4, 1, LONG, WIDTH) for _ in range(2)]
    found, expected = (
        called(latent, timestep, [{"keys": k} for k in buffer], {"filled": 0, "fills": True})
        for called, buffer in zip((model, plain), buffers, strict=True)
    )
    assert torch.equal(found, expected)
    assert torch.equal(*buffers)


@torch.no_grad()
def test_arguments_that_share_memory_later_are_refused():
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1))
    latent, timestep, flags = (
        torch.randn(1, 2, WIDTH),
        torch.tensor(1.0),
        {"filled": 0, "fills": True},
    )
    model(latent, timestep, empty_cache(), dict(flags))
    buffer = torch.zeros(1, LONG + 3, WIDTH)
    overlapping = [{"keys": buffer[:, i : i + LONG]} for i in range(4)]
    with pytest.raises(CaptureError, match=r"writes to cache\.0\.keys, which shares its memory"):
        model(latent, timestep, overlapping, dict(flags))
    assert not buffer.any()


@torch.no_grad()
def test_artifacts_refuse_calls_that_write(tmp_path):
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1))
    flags = {"filled": 0, "fills": True}
    model(torch.randn(1, 2, WIDTH), torch.tensor(1.0), empty_cache(), flags)
    with pytest.raises(ArtifactError, match="calls that write to their arguments"):
        fxcache.export(model, tmp_path / "artifact")


@torch.no_grad()
def test_the_halves_of_guidance_refuse_calls_that_write():
    guidance = fxcache.GuidanceCache()
    model = fxcache.optimize(Causal().eval(), fxcache.Uniform(1), guidance=guidance)
    latent = torch.randn(1, 2, WIDTH).repeat(2, 1, 1)
    cache = [{"keys": torch.zeros(2, LONG, WIDTH)} for _ in range(4)]
    with pytest.raises(CutError, match="writes to its arguments"):
        model(latent, torch.tensor(1.0), cache, {"filled": 0, "fills": True})
