"""Computes signals that depend on the timestep alone for the whole run when it starts."""

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.rewrite.variants import Variants
from fxcache.runtime.offload import Offload
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.position import Element


def precomputed_signal(step: StepContext, offload: Offload) -> Tensor | None:
    """Return the step's signal on the CPU if it can be computed before the run; None otherwise.

    The signal must depend on the timestep alone, and the timestep must be an element of the noise
    scheduler's timesteps tensor, which holds all timesteps of the run.
    """
    position, signal = step.trajectory.position, step.variants.plan.signal
    if signal is None or not signal.of_timestep_alone or not isinstance(position, Element):
        return None
    run = step.trajectory.run
    if run.signals is None:
        run.signals = compute_signals(step.call, position, step.variants, offload)
    return run.signals[position.offset]


def timesteps_of(call: Call, position: Element) -> Tensor:
    """Return all timesteps of the run, ``[T]``: the tensor that contains the call's timestep."""
    schedule = position.schedule()
    if schedule is not None and not schedule.is_inference():
        return schedule.reshape(-1)
    start = call.timestep.storage_offset() - position.offset
    timesteps: Tensor = call.timestep.as_strided((position.length,), (1,), start)
    return timesteps


@torch.no_grad()
def compute_signals(call: Call, position: Element, variants: Variants, offload: Offload) -> Tensor:
    """Return the signal at each timestep of the run, ``[T, …]``, on the CPU."""
    index, tensors = call.timestep_index, list(call.tensors)
    prefix, found = variants.prefix(), []
    for timestep in timesteps_of(call, position):
        tensors[index] = timestep.expand(call.timestep.shape)
        values = offload.run(prefix.module, *prefix.signature.bind(tensors))
        found.append(prefix.signature.unpack(values).signal)
    return torch.stack(found).cpu()  # type: ignore[arg-type]
