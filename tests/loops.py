"""Sampling loops as users write them, and functions that read the report."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests import tiny
from tests.engines import optimized_engine
from tests.tiny import ddim


@torch.no_grad()
def sample(
    model: Callable[..., Any], steps: int = 10, seed: int = 0, scheduler: Any = None, **inputs: Any
) -> Tensor:
    """Return the latents after ``steps`` of a denoising loop over the scheduler's timesteps."""
    scheduler = scheduler or ddim()
    scheduler.set_timesteps(steps)
    given = dict(inputs)
    latents = given.pop("sample") * getattr(scheduler, "init_noise_sigma", 1.0)
    generator = torch.Generator().manual_seed(seed)
    noisy = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, t)
        predicted = model(scaled, t, **given).sample
        latents = scheduler.step(predicted, t, latents, **noisy).prev_sample
    return latents


@torch.no_grad()
def guided_sample(model: Any) -> Tensor:
    """Run ten steps whose batch is one latent twice, as in classifier-free guidance."""
    scheduler, inputs = ddim(), tiny.inputs()
    scheduler.set_timesteps(10)
    latents = inputs["sample"][:1]
    for t in scheduler.timesteps:
        inputs["sample"] = torch.cat([latents] * 2)
        first, second = model(timestep=t, **inputs).sample.chunk(2)
        latents = scheduler.step(first + 5 * (second - first), t, latents).prev_sample
    return latents


def refreshes(model: nn.Module) -> list[list[int]]:
    """Return the steps that ran the full variant, for each run so far."""
    engine = optimized_engine(model)
    return [run.refreshes for run in engine.runs]


def refresh_graphs(model: nn.Module) -> list[nn.Module]:
    """The graphs so far that compute everything, whatever is hoisted out of them."""
    return [
        variant.module
        for variants in optimized_engine(model).captures.values()
        for key, variant in variants.made.items()
        if not key.reused
    ]


def steps(model: nn.Module) -> list[int]:
    """Return the number of calls of each run so far."""
    engine = optimized_engine(model)
    return [len(run.steps) for run in engine.runs]


def last_reason(model: nn.Module) -> str:
    """Return why the last call refreshed or reused."""
    engine = optimized_engine(model)
    return engine.runs[-1].steps[-1].decision.reason
