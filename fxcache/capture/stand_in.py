"""Stand-ins for the module and for the input tensors of a trace."""

from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import forget_hooks, tree_map_only
from fxcache.program import STATE_KEY


def as_original(module: nn.Module, original: type[nn.Module]) -> nn.Module:
    """A stand-in for ``module`` that has its original class and shares weights and submodules.

    The optimised module itself keeps its class, so that calls from other threads still go through
    fxcache. The stand-in has no hooks, because the hooks of the root run around every call anyway.
    """
    stand_in: nn.Module = object.__new__(original)  # FSDP's own __new__ calls __init__
    hidden = {"forward", "_compiled_call_impl", STATE_KEY}
    attributes = vars(module).items()
    stand_in.__dict__.update((k, v) for k, v in attributes if k not in hidden)
    forget_hooks(stand_in)
    return stand_in


def stand_ins(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with each tensor replaced by an empty tensor of its form.

    Tracing identifies tensors by object identity. So a tensor that is passed twice, or that is
    also a buffer of the model, would become a single input.
    """
    return tree_map_only(Tensor, empty, arguments)


def empty(tensor: Tensor) -> Tensor:
    """Return an empty tensor with the shape, the dtype and the strides of ``tensor``."""
    if type(tensor) is not Tensor or tensor.layout is not torch.strided:
        return torch.empty_like(tensor)
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
