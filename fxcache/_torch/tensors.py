"""Access to the memory and versions of tensors, and batched operators."""

import operator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fxcache._torch.tracing import is_vmapped

__all__ = [
    "Extent",
    "base_of",
    "copy_all",
    "replace_tensor",
    "same_memory",
    "schedule_tensor",
    "share_weights",
    "version_of",
    "weight_kind",
    "weight_kind_and_version",
]


def replace_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer ``name``, while other threads may read it.

    Why: the public way deletes and registers, and another thread may read in between. ``getattr``
    searches the parameters, then the buffers, and fails if the entry is deleted between its test
    and its read. So the new entry is added first. If a parameter becomes a buffer or vice versa,
    one assignment then replaces the whole dictionary with the old entry.
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


def share_weights(module: nn.Module, owner: nn.Module) -> None:
    """Let ``module`` have the parameters and buffers of ``owner``, also those that it gets later.

    Why: there is no public way. ``owner.to(...)`` replaces tensors that a public assignment shares.
    """
    module._parameters, module._buffers = owner._parameters, owner._buffers


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the base of a view; None for other tensors and for views made in inference mode.

    Why: as for ``schedule_tensor``.
    """
    return tensor._base


def schedule_tensor(timestep: Tensor) -> Tensor | None:
    """Return the 1-D tensor that ``timestep`` is a view of, as in ``for t in timesteps``; or None.

    Why: only the private ``_base`` leads from a view to its tensor. Inference mode does not set it.
    """
    base = timestep._base
    return base if base is not None and base.dim() == 1 else None


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors share their storage; always True inside vmap. They may be traced.

    Why: a traced tensor has no address, so only the identity of the storage tells.
    """
    if is_vmapped(first) or is_vmapped(second):
        return True
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata


class Extent(NamedTuple):
    """The part of a storage from the first element of a tensor to its last one, in bytes."""

    storage: int
    start: int
    end: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Extent":
        """Return the extent of ``tensor``.

        Why: as for ``same_memory``.
        """
        start = int(tensor.storage_offset()) * tensor.element_size()
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        reach = sum((size - 1) * stride for size, stride in steps) + 1 if tensor.numel() else 0
        end = start + reach * tensor.element_size()
        return cls(tensor.untyped_storage()._cdata, start, end)

    def meets(self, other: "Extent") -> bool:
        """Return whether both have a byte in common."""
        return self.storage == other.storage and self.start < other.end and other.start < self.end


def version_of(tensor: Tensor) -> int:
    """Return how often ``tensor`` was written in place; 0 for inference tensors.

    Why: an in-place change of the conditioning must be noticed.
    """
    return 0 if tensor.is_inference() else tensor._version


# Of tensors that are no inference tensors. Why: as for ``version_of``.
version_counter = operator.attrgetter("_version")

# Attribute getters are fast: all weights of a model are compared when a run starts.
# Why: as for ``version_of``.
weight_kind = operator.attrgetter("shape", "dtype", "device")
weight_kind_and_version = operator.attrgetter("shape", "dtype", "device", "_version")


def copy_all(buffers: list[Tensor], values: list[Tensor]) -> None:
    """Copy each of ``values`` to the buffer at the same index, which has the same shape.

    Why: one launch copies many small tensors. torch's batched operators are private.
    """
    if len(buffers) == 1:
        buffers[0].copy_(values[0])
    elif buffers:
        torch._foreach_copy_(buffers, values)
