"""A model with its sampling loop, and what a contender puts around its runs and steps."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

STEPS = 20


class At(NamedTuple):
    """The place of a step in its run.

    Attributes:
        number: The number of the step, from 0.
        steps: The number of steps of the run.
        timestep: The element of the scheduler's timesteps.
        sigma: The noise level, if the scheduler has sigmas.
    """

    number: int
    steps: int
    timestep: Tensor
    sigma: float | None


@dataclass(frozen=True)
class Request:
    """What one run samples.

    Attributes:
        latent: The noise.
        predict: Calls a model with a latent and a timestep, and returns the guided prediction.
    """

    latent: Tensor
    predict: Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A model and what is sampled with it.

    Attributes:
        name: The name in the tables.
        model: The denoiser, which a contender may change.
        scheduler: The noise scheduler of diffusers.
        requests: What is sampled. Times are measured on the first.
        decode: Makes of a final latent what is compared: the latent itself, or pictures in [0, 1].
        peers_cut: The blocks that caches with one computed first block skip.
        spare: What is sampled to tune, and is not measured. Only bundled models have it.
    """

    name: str
    model: Any
    scheduler: Any
    requests: tuple[Request, ...]
    decode: Callable[[Tensor], Tensor] = field(default=lambda latent: latent)
    peers_cut: Any = None
    spare: Request | None = None


@dataclass(frozen=True)
class Ask:
    """How often the model may be computed: at every ``interval``-th of ``steps`` steps."""

    steps: int = STEPS
    interval: int = 3

    @property
    def refreshed(self) -> tuple[int, ...]:
        return tuple(range(0, self.steps, self.interval))


def call_it(_: At, call: Callable[[], Tensor]) -> Tensor:
    return call()


@dataclass(frozen=True)
class Live:
    """A contender that is attached to a model.

    Attributes:
        model: The model to call and to compile.
        run: Makes the block around a run, from its number of steps.
        step: Takes the place of a step and the call of the model, and returns the prediction.
        steps: The number of steps, if it differs from what was asked for.
        setting: The settings that were chosen, in words.
        compiling: Makes the block in which the model is compiled and run.
    """

    model: Any
    run: Callable[[int], AbstractContextManager[object]] = lambda _: nullcontext()
    step: Callable[[At, Callable[[], Tensor]], Tensor] = call_it
    steps: int | None = None
    setting: str = ""
    compiling: Callable[[], AbstractContextManager[object]] = nullcontext


Watch = Callable[[Callable[[], Tensor]], Tensor]


def unwatched(call: Callable[[], Tensor]) -> Tensor:
    return call()


@torch.no_grad()
def sample(
    subject: Subject,
    live: Live,
    ask: Ask,
    watch: Watch = unwatched,
    request: Request | None = None,
) -> Tensor:
    """Return the final latent of one run. The timesteps are on the device of the latent.

    Args:
        subject: The model and its scheduler.
        live: The contender that is attached to the model.
        ask: The number of steps.
        watch: Is called with each call of the model and returns its prediction. It may measure.
        request: What to sample; None for the first request.
    """
    chosen, steps = request or subject.requests[0], live.steps or ask.steps
    scheduler, latent = subject.scheduler, chosen.latent
    scheduler.set_timesteps(steps)
    with live.run(steps):
        # The scheduler keeps its own on the CPU, so that its steps do not wait for a GPU.
        timesteps = scheduler.timesteps.to(latent.device)
        for index, timestep in enumerate(timesteps):
            sigmas = getattr(scheduler, "sigmas", None)
            sigma = None if sigmas is None else float(sigmas[index])
            place = At(index, steps, timestep, sigma)
            call = partial(chosen.predict, live.model, latent, timestep)
            predicted = watch(partial(live.step, place, call))
            latent = scheduler.step(predicted, scheduler.timesteps[index], latent).prev_sample
            del predicted
    return latent
