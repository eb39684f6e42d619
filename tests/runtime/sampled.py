"""Samples a model, and notes what its objects hold after each step."""

from collections.abc import Callable
from typing import Any

import torch

from tests.plain import dit_inputs

STEPS = 5
CHANGES = "change Python objects"  # a part of the warning about such calls


def sampled(
    model: Any, held: Callable[[Any], Any] = lambda _: None, steps: int = STEPS
) -> list[Any]:
    """Sample. Return the latent, and what the model holds, after each step."""
    inputs, found = dit_inputs(), []
    latent = inputs["sample"]
    with torch.no_grad():
        for t in torch.linspace(900, 100, steps):
            latent = latent - 0.1 * model(latent, t, inputs["text"])
            found.append((latent, str(held(model))))
    return found


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for (latent, held), (plain, expected_held) in zip(found, expected, strict=True):
        assert torch.equal(latent, plain)
        assert held == expected_held
