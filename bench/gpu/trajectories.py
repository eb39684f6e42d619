"""Runs of the plain PyTorch denoisers: their inputs, and what comes of them step by step."""

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
    """One request: a latent for each step, the timesteps, and the text.

    The latents of a run are independent of each other, so that a reused value differs clearly from
    a recomputed one, and no error is carried from step to step.
    """

    latents: list[Tensor]
    timesteps: Tensor
    text: Tensor

    def copied(self) -> "Trajectory":
        """Tensors of its own, in memory that belongs to the current stream."""
        latents = [latent.clone() for latent in self.latents]
        return Trajectory(latents, self.timesteps.clone(), self.text.clone())

    @torch.no_grad()
    def outputs(
        self, called: Callable[..., Tensor], module: nn.Module | None = None
    ) -> list[Tensor]:
        """What ``called`` returns at each step; in a session of ``module`` if that is optimised."""
        session: AbstractContextManager[Any] = (
            fxcache.session(module, num_steps=len(self.latents)) if module else nullcontext()
        )
        with session:
            steps = zip(self.latents, self.timesteps, strict=True)
            return [called(latent, timestep, self.text) for latent, timestep in steps]


def trajectory(setup: Setup, name: str, dtype: torch.dtype, seed: int) -> Trajectory:
    """A request to the model of that name."""
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
    """``‖found − expected‖ / ‖expected‖`` in float64; NaN where something is not finite."""
    exact = expected.double()
    return float((found.double() - exact).norm() / exact.norm())


def largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative error of a step; NaN where one is NaN."""
    errors = [relative_error(x, y) for x, y in zip(found, expected, strict=True)]
    return float(torch.tensor(errors).max())


def count_unequal(found: list[Tensor], expected: list[Tensor]) -> int:
    """How many steps differ in a bit."""
    return sum(not torch.equal(x, y) for x, y in zip(found, expected, strict=True))
