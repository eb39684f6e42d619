"""Tests captures while torch keeps the values of parametrised weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import fxcache
from fxcache._torch import is_fake
from tests.plain import DiT, dit, dit_inputs


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled() -> DiT:
    model = dit()
    parametrize.register_parametrization(model.head, "weight", Doubled())
    return model


@pytest.mark.parametrize("read_before", [False, True])
@torch.no_grad()
def test_a_capture_inside_cached(read_before):
    model, plain = fxcache.optimize(doubled(), fxcache.Uniform(1)), doubled()
    inputs, timestep = dit_inputs(), torch.tensor(900.0)
    with parametrize.cached():
        if read_before:
            kept = model.head.weight
        assert torch.equal(model(timestep=timestep, **inputs), plain(timestep=timestep, **inputs))
        assert not is_fake(model.head.weight)
        if read_before:
            assert model.head.weight is kept
    for changed in (model, plain):
        weights = changed.head.parametrizations.weight  # type: ignore[union-attr]
        weights.original.mul_(3)  # type: ignore[union-attr, operator]
    with fxcache.session(model, num_steps=1):
        found = model(timestep=timestep - 1, **inputs)
    assert torch.equal(found, plain(timestep=timestep - 1, **inputs))
