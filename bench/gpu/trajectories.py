"""Runs of the denoisers in plain PyTorch: their inputs, and their outputs at each step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from bench.gpu.models import build, sample_shape
from bench.gpu.setup import Setup

STEPS = 9
BATCH = 2


@dataclass(frozen=True)
class Trajectory:
    """A request: a latent for each step, the timesteps, and the text.

    The latents of a run are independent, so that reused values clearly differ from recomputed ones,
    and errors do not propagate from step to step.
    """

    latents: list[Tensor]
    timesteps: Tensor
    text: Tensor

    def copied(self) -> "Trajectory":
        """Return a copy whose memory is allocated on the current stream."""
        latents = [latent.clone() for latent in self.latents]
        return Trajectory(latents, self.timesteps.clone(), self.text.clone())

    @torch.no_grad()
    def outputs(
        self, called: Callable[..., Tensor], module: nn.Module | None = None
    ) -> list[Tensor]:
        """Return the outputs of ``called``, in a session of ``module`` if it is given."""
        session: AbstractContextManager[Any] = (
            fxcache.session(module, num_steps=len(self.latents)) if module else nullcontext()
        )
        with session:
            steps = zip(self.latents, self.timesteps, strict=True)
            return [called(latent, timestep, self.text) for latent, timestep in steps]


def trajectory(setup: Setup, name: str, dtype: torch.dtype, seed: int) -> Trajectory:
    """Return a random request to a model."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(setup.device, dtype)

    shape = sample_shape(name, setup.size, BATCH)
    timesteps = torch.linspace(900, 100, STEPS, device=setup.device, dtype=dtype)
    latents = [drawn(*shape) for _ in range(STEPS)]
    return Trajectory(latents, timesteps, drawn(BATCH, setup.size.words, setup.size.width))


def model_of(setup: Setup, name: str, dtype: torch.dtype) -> nn.Module:
    return build(name, setup.size, setup.device, dtype)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return ``‖found − expected‖ / ‖expected‖`` in float64; NaN if a value is not finite."""
    exact = expected.double()
    return float((found.double() - exact).norm() / exact.norm())


def largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest relative error of a step; NaN if one is NaN."""
    errors = [relative_error(x, y) for x, y in zip(found, expected, strict=True)]
    return float(torch.tensor(errors).max())


def count_unequal(found: list[Tensor], expected: list[Tensor]) -> int:
    """Return the number of steps that differ in a bit."""
    return sum(not torch.equal(x, y) for x, y in zip(found, expected, strict=True))
