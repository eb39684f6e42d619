"""Memory, versions and batched operators of tensors."""

import operator

import torch
from torch import Tensor, nn

from fxcache._torch.tracing import is_vmapped

__all__ = [
    "base_of",
    "copy_all",
    "replace_tensor",
    "same_memory",
    "schedule_tensor",
    "version_of",
    "weight_kind",
    "weight_kind_and_version",
]


def replace_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put ``tensor`` in place of the parameter or buffer ``name``, while other threads read it.

    Why: the public way deletes and registers, and a thread that reads in between finds nothing.
    ``getattr`` looks among the parameters, then among the buffers, and fails if an entry goes
    between its test and its read. So the new entry comes first, and where the kind of tensor
    changes, the old entry goes with its whole dictionary, by one assignment.
    """
    kept = name in module._parameters
    if isinstance(tensor, nn.Parameter):
        if kept:
            module._parameters[name] = tensor
            return
        module._parameters = {**module._parameters, name: tensor}
        module._buffers = {k: v for k, v in module._buffers.items() if k != name}
        module._non_persistent_buffers_set.discard(name)
    elif kept:
        module._non_persistent_buffers_set.add(name)
        module._buffers = {**module._buffers, name: tensor}
        module._parameters = {k: v for k, v in module._parameters.items() if k != name}
    else:
        module._buffers[name] = tensor


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that ``tensor`` is a view of; None for what is no view, or made in inference mode.

    Why: as for ``schedule_tensor``.
    """
    return tensor._base


def schedule_tensor(timestep: Tensor) -> Tensor | None:
    """The 1-D tensor of which ``timestep`` is a view, as in ``for t in timesteps``; else None.

    Why: ``_base`` is the only link from a view to its tensor. Inference mode keeps none.
    """
    base = timestep._base
    return base if base is not None and base.dim() == 1 else None


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors, traced ones included, share their storage, or may: inside vmap.

    Why: a traced tensor has no address; only the storage's own identity tells.
    """
    if is_vmapped(first) or is_vmapped(second):
        return True
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata


def version_of(tensor: Tensor) -> int:
    """How often ``tensor`` was written in place; 0 for inference tensors, which do not count.

    Why: an in-place change of the conditioning must not go unnoticed.
    """
    return 0 if tensor.is_inference() else tensor._version


# As attribute getters, since all weights of a model are compared when a run starts.
# Why: as for ``version_of``.
weight_kind = operator.attrgetter("shape", "dtype", "device")
weight_kind_and_version = operator.attrgetter("shape", "dtype", "device", "_version")


def copy_all(buffers: list[Tensor], values: list[Tensor]) -> None:
    """Copy each of ``values`` into one of ``buffers``, of the same shape.

    Why: one launch for many small tensors; torch has no public spelling of its batched operators.
    """
    if len(buffers) == 1:
        buffers[0].copy_(values[0])
    elif buffers:
        torch._foreach_copy_(buffers, values)
