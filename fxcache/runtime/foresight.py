"""Signals that depend on the timestep alone: evaluated for the whole run when it starts."""

import torch
from torch import Tensor

from fxcache.rewrite.runner import Variants
from fxcache.runtime.branch import Branch
from fxcache.runtime.position import Element
from fxcache.signature import Call


def foreseen(branch: Branch, call: Call, variants: Variants) -> Tensor | None:
    """This call's signal, if it was known before the run; on the CPU, so that none waits.

    Known where the signal depends on the timestep alone, and the call's timestep is an element of
    the noise scheduler's timesteps tensor: then all of them are known.
    """
    position, signal = branch.position, variants.plan.signal
    if signal is None or not signal.of_timestep_alone or not isinstance(position, Element):
        return None
    if branch.run.signals is None:
        branch.run.signals = evaluated(call, position, variants)
    return branch.run.signals[position.offset]


@torch.no_grad()
def evaluated(call: Call, position: Element, variants: Variants) -> Tensor:
    """The signal at each of the run's timesteps, ``[T, …]``: one copy from the device."""
    given = call.timestep
    start = given.storage_offset() - position.offset
    timesteps = given.as_strided((position.length,), (1,), start)
    index = next(i for i, tensor in enumerate(call.tensors) if tensor is given)
    tensors = list(call.tensors)
    found = []
    for timestep in timesteps:
        tensors[index] = timestep.expand(given.shape)
        found.append(variants.prefix_module(*tensors)[0])
    return torch.stack(found).cpu()
