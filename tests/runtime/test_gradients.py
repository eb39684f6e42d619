"""Tests calls that want gradients for their inputs, as guidance by a loss does."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from tests import tiny
from tests.loops import refreshes

pytestmark = pytest.mark.usefixtures("shared_captures")
STEPS = 6


def guided(unet: Any, steps: int = STEPS) -> Tensor:
    """Move the latent along a gradient through the model, then by the model's output."""
    inputs = tiny.inputs()
    latent = inputs.pop("sample")
    timesteps = torch.linspace(900, 100, steps)
    for timestep in timesteps:
        with torch.enable_grad():
            latent = latent.detach().requires_grad_()
            loss = unet(latent, timestep, **inputs).sample.square().mean()
            (gradient,) = torch.autograd.grad(loss, latent)
        with torch.no_grad():
            latent = latent - 10 * gradient
            latent = latent - 0.1 * unet(latent, timestep, **inputs).sample
    return latent


@pytest.mark.filterwarnings("ignore:some calls want gradients")
def test_gradients_are_those_of_the_original_model():
    unet = tiny.small_unet()
    plain = guided(unet)
    fxcache.optimize(unet, fxcache.Uniform(1))
    assert torch.equal(guided(unet), plain)


def test_calls_without_gradients_reuse():
    unet = tiny.small_unet()
    fxcache.optimize(unet, fxcache.Uniform(3))
    with pytest.warns(fxcache.FxcacheWarning, match=r"want gradients.* torch\.no_grad"):
        guided(unet)
    assert refreshes(unet) == [[0, 3]]
    assert "want gradients" in str(fxcache.report(unet))


def test_compiled_calls_with_gradients():
    unet = tiny.small_unet()
    plain = guided(unet, steps=2)
    fxcache.optimize(unet, fxcache.Uniform(1))
    with pytest.warns(fxcache.FxcacheWarning, match="want gradients"):
        assert torch.equal(guided(torch.compile(unet, backend="eager"), steps=2), plain)
