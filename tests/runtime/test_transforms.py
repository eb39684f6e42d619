"""Tests calls inside transforms of torch.func, with dual tensors and with fake tensors.

The original model runs them: cached values have no derivatives, no batch dimension of vmap, and
values where a fake tensor has none.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import fxcache
from tests.loops import refreshes
from tests.plain import dit, dit_inputs

Transform = Callable[[nn.Module, Tensor], Tensor]
TEXT = dit_inputs()["text"]


def mapped(model: nn.Module, t: Tensor) -> Tensor:
    def one(sample: Tensor, text: Tensor) -> Tensor:
        return model(sample[None], t, text[None])

    return torch.vmap(one)(dit_inputs()["sample"], TEXT)


def tangent(model: nn.Module, t: Tensor) -> Tensor:
    sample = dit_inputs()["sample"]
    found = torch.func.jvp(lambda s: model(s, t, TEXT), (sample,), (torch.ones_like(sample),))
    return found[1]


def gradient(model: nn.Module, t: Tensor) -> Tensor:
    found: Tensor = torch.func.grad(lambda s: model(s, t, TEXT).sum())(dit_inputs()["sample"])
    return found


def dual(model: nn.Module, t: Tensor) -> Tensor:
    sample = dit_inputs()["sample"]
    with forward_ad.dual_level():
        result = model(forward_ad.make_dual(sample, torch.ones_like(sample)), t, TEXT)
        return forward_ad.unpack_dual(result).tangent


@pytest.mark.parametrize("transform", [mapped, tangent, gradient, dual])
@pytest.mark.filterwarnings("ignore:some calls")
@torch.no_grad()
def test_the_original_runs_inside_transforms(transform: Transform):
    model, plain = fxcache.optimize(dit(), fxcache.Uniform(2)), dit()
    model.requires_grad_(False)
    sample = dit_inputs()["sample"]
    with fxcache.session(model, num_steps=4):
        for t in torch.linspace(900, 100, 4):
            model(sample, t, TEXT)
            assert torch.equal(transform(model, t), transform(plain, t))
    assert refreshes(model) == [[0, 2]]  # a reuse step had cached values at hand
    assert "run the original model" in str(fxcache.report(model))


@pytest.mark.filterwarnings("ignore:some calls pass fake tensors")
@torch.no_grad()
def test_fake_tensors_run_the_original():
    model = fxcache.optimize(dit(), fxcache.Uniform(2))
    inputs = dit_inputs()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes: dict[str, Any] = {name: mode.from_tensor(value) for name, value in inputs.items()}
        assert model(timestep=torch.tensor(9.0), **fakes).shape == inputs["sample"].shape
    model(timestep=torch.tensor(9.0), **inputs)
    assert refreshes(model) == [[0]]
