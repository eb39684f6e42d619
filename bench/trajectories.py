"""Records the latents that the bundled denoiser gets, for many requests at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from bench.emoji_sd import pictures

STEPS = (4, 8, 20, 50)
MODEL = Path(__file__).parent / "models" / "emoji-sd"
GUIDANCE = 7.5
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "DPM-Solver++": ("DPMSolverMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ancestral Euler": ("EulerAncestralDiscreteScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}


@dataclass(frozen=True)
class Request:
    """A request for an image, from noise or from the glyph of its caption.

    Attributes:
        caption: The prompt.
        seed: The seed of the initial noise, and of the noise that the solver adds.
        strength: The strength of image-to-image, from 0 to 1; None to start from noise.
    """

    caption: str
    seed: int
    strength: float | None = None


@dataclass(frozen=True)
class Trajectories:
    """The latents that the denoiser gets, after ``scale_model_input``.

    Attributes:
        latents: ``[K, N, C, H, W]`` for K calls and N requests; zeros before its first call.
        first: The index of each request's first call. Image-to-image starts later.
    """

    latents: Tensor
    first: tuple[int, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the output file, the solvers and the numbers of steps."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--solver", choices=SOLVERS, action="append", help="default: all")
    parser.add_argument("--steps", type=int, action="append", help=f"default: {STEPS}")


def solvers_and_steps(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """Return the pairs of a solver and a number of steps that the command measures."""
    pairs = product(arguments.steps or STEPS, arguments.solver or SOLVERS)
    return [(solver, steps) for steps, solver in pairs]


def load() -> Any:
    """Load the bundled pipeline in float32 on the CPU."""
    return diffusers.StableDiffusionPipeline.from_pretrained(MODEL)


def scheduler_of(pipeline: Any, solver: str, steps: int) -> Any:
    """Return the solver's noise scheduler with the model's settings, at its first step."""
    name, options = SOLVERS[solver]
    scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **options)
    scheduler.set_timesteps(steps)
    return scheduler


def first_call(steps: int, strength: float | None, order: int) -> int:
    """Return the index of the first call, as in diffusers' image-to-image pipelines."""
    return 0 if strength is None else (steps - min(int(steps * strength), steps)) * order


def encoded(pipeline: Any, captions: Sequence[str]) -> Tensor:
    """Return the scaled latents of the captions' glyphs, ``[N, C, H, W]``."""
    data, names = pictures.training_set()
    chosen = data[[names.index(caption) for caption in captions]]
    return pipeline.vae.encode(chosen).latent_dist.mean * pipeline.vae.config.scaling_factor


def start(pipeline: Any, scheduler: Any, requests: Sequence[Request], begin: int) -> Tensor:
    """Return the initial latents ``[N, C, H, W]``, before ``scale_model_input``."""
    unet = pipeline.unet.config
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    if requests[0].strength is None:
        return noise * scheduler.init_noise_sigma
    clean = encoded(pipeline, [request.caption for request in requests])
    return scheduler.add_noise(clean, noise, scheduler.timesteps[begin].repeat(len(requests)))


def sample(pipeline: Any, scheduler: Any, requests: Sequence[Request], begin: int) -> list[Tensor]:
    """Return the inputs ``[N, C, H, W]`` of each call, for requests with the same first step."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    latents = start(pipeline, scheduler, requests, begin)
    captions = [request.caption for request in requests]
    prompts = torch.cat(pipeline.encode_prompt(captions, latents.device, 1, True)[::-1])
    generators = [torch.Generator().manual_seed(10_000 + request.seed) for request in requests]
    noise = {"generator": generators} if adds_noise(scheduler) else {}
    inputs = []
    for t in scheduler.timesteps[begin:]:
        scaled = scheduler.scale_model_input(latents, t)
        inputs.append(scaled)
        without, guided = pipeline.unet(scaled.repeat(2, 1, 1, 1), t, prompts).sample.chunk(2)
        predicted = without + GUIDANCE * (guided - without)
        latents = scheduler.step(predicted, t, latents, **noise).prev_sample
    return inputs


def adds_noise(scheduler: Any) -> bool:
    """Return whether the solver adds new noise at each step."""
    return type(scheduler).__name__ in {
        "EulerAncestralDiscreteScheduler",
        "DDPMScheduler",
        "LCMScheduler",
    }


@torch.no_grad()
def trajectories(
    pipeline: Any, solver: str, steps: int, requests: Sequence[Request]
) -> Trajectories:
    """Sample all requests. Requests of one strength are one batch."""
    scheduler = scheduler_of(pipeline, solver, steps)
    calls, order = len(scheduler.timesteps), scheduler.order
    found = torch.empty(0)
    first = [first_call(steps, request.strength, order) for request in requests]
    for strength in {request.strength: None for request in requests}:
        members = [i for i, request in enumerate(requests) if request.strength == strength]
        begin = first[members[0]]
        scheduler = scheduler_of(pipeline, solver, steps)
        inputs = sample(pipeline, scheduler, [requests[i] for i in members], begin)
        if not len(found):
            found = torch.zeros(calls, len(requests), *inputs[0].shape[1:])
        found[begin:, members] = torch.stack(inputs)
    return Trajectories(found, tuple(first))
