"""A sampling loop for a denoiser of which only one call is known."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.checks import require_integer_value
from fxcache.errors import ConfigError
from fxcache.gate.subject import Subject
from fxcache.runtime.denoisers import module_of
from fxcache.runtime.module import engine_of
from fxcache.runtime.pipeline import require_engine
from fxcache.runtime.session import Session
from fxcache.signature import Signature

STEPS = 20


def subject_of(
    model: nn.Module,
    inputs: Mapping[str, Any],
    steps: int = STEPS,
    sample: Callable[[nn.Module], Any] | None = None,
) -> Subject:
    """Return what a gate measures of one denoiser.

    Args:
        model: The optimised denoiser.
        inputs: The arguments of its first call, by name.
        steps: The number of steps of the loop.
        sample: Your own loop: a function of the model that calls it with fixed seeds, and returns
            a tensor or images. ``inputs`` and ``steps`` are not used then.

    Raises:
        StateError: The model is not optimised.
        ConfigError: ``steps`` is below 1.
    """
    model = module_of(model, "fxcache gate")
    engine = require_engine(model, "fxcache gate")
    require_integer_value(steps, "steps", "fxcache gate", 1)

    def run() -> Any:
        if sample:
            return sample(model)
        with one_run(model, steps):
            return euler(model, engine.signature, inputs, steps)

    settings = {} if sample else {"steps": steps}
    return Subject({type(model).__name__: model}, run, settings=settings)


def one_run(model: nn.Module, steps: int) -> AbstractContextManager[Any]:
    """Return a block whose calls are one run, if the model is optimised now."""
    return Session(model, steps) if engine_of(model) else nullcontext()


@torch.no_grad()
def euler(model: nn.Module, signature: Signature, inputs: Mapping[str, Any], steps: int) -> Tensor:
    """Return the latent after ``steps`` Euler steps, the timestep going from its value to 0.

    Args:
        model: The denoiser.
        signature: Its signature, which knows the latent and the timestep.
        inputs: The arguments of the first call.
        steps: The number of steps.

    Raises:
        ConfigError: There is no timestep, or the prediction does not fit the latent.
    """
    call = signature.call((), dict(inputs))
    latent, timestep = call.latent, call.timestep
    if timestep is None:
        raise ConfigError(
            f"the inputs of {signature.model} have no timestep",
            where="fxcache gate",
            remedy="pass all inputs of one call, or your own loop as sample=",
        )
    for step in range(steps):
        left = (steps - step) / steps
        now = {call.latent_name: latent, call.timestep_name: at(timestep, left)}
        predicted = prediction_of(model(**{**inputs, **now}), latent, signature.model)
        latent = latent - predicted / steps
    return latent


def at(timestep: Any, share: float) -> Any:
    """Return ``timestep`` multiplied by ``share``, with the same type and dtype."""
    if isinstance(timestep, Tensor):
        return (timestep * share).to(timestep.dtype)
    return type(timestep)(timestep * share)


def prediction_of(result: Any, latent: Tensor, model: str) -> Tensor:
    """Return the part of a model's result that has the shape of the latent.

    Further channels of a prediction, such as a learned variance, are left out.

    Raises:
        ConfigError: There is no such part.
    """
    first = result if isinstance(result, Tensor) else next(iter(parts_of(result)), None)
    if isinstance(first, Tensor) and first.dim() == latent.dim() > 1:
        first = first[:, : latent.shape[1]]
    if not isinstance(first, Tensor) or first.shape != latent.shape:
        raise ConfigError(
            f"the result of {model} does not have the shape of its latent",
            where="fxcache gate",
            remedy="pass your own loop as sample=",
        )
    return first


def parts_of(result: Any) -> list[Any]:
    """Return the parts of a tuple, a dict or an output object, in order."""
    if isinstance(result, Mapping):
        return list(result.values())
    return list(result) if isinstance(result, list | tuple) else list(vars(result).values())
