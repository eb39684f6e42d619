"""Tests models whose latent is a container, in which a reference comes first."""

from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from tests.loops import refreshes
from tests.plain import dit, dit_inputs


class WithReference(nn.Module):
    """Takes the latent as ``[[reference, noisy]]``, as models of editing do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = dit()

    def forward(self, pictures: list[list[Tensor]], timestep: Tensor, text: Tensor) -> Tensor:
        ((reference, noisy),) = pictures
        return self.inner(noisy + 0.1 * reference, timestep, text)


@torch.no_grad()
def sampled(model: Any, seed: int) -> Tensor:
    inputs = dit_inputs(seed=seed)
    noisy, reference = inputs["sample"], torch.ones_like(inputs["sample"])
    for step in range(7):
        # A new timestep tensor each time: only the latent connects the calls.
        timestep = torch.tensor([1000.0 - 100 * step])
        noisy = noisy - 0.3 * model([[reference, noisy]], timestep, inputs["text"].clone())
    return noisy


def test_the_noisy_latent_tells_runs_apart_not_the_reference():
    model = WithReference().eval()
    plain = sampled(model, 0)
    fxcache.optimize(model, fxcache.Uniform(3))
    first, again = sampled(model, 0), sampled(model, 0)
    # The second latent has moved too far to be told from another request's.
    assert refreshes(model) == [[0, 1, 3, 6]] * 2
    assert torch.equal(first, again)
    assert not torch.equal(first, plain)
