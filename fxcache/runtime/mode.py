"""Refuses calls of an optimised module that are not for inference."""

import torch
from torch import nn

from fxcache.call import Call
from fxcache.errors import ModeError


def require_inference(module: nn.Module, call: Call) -> None:
    """Raise ModeError in train mode, or if the output would require gradients."""
    require_eval(module)
    if torch.is_grad_enabled() and wants_gradients(module, call):
        raise ModeError(
            "gradients are wanted: grad mode is on, and weights or inputs require gradients",
            where=f"call of {type(module).__name__}",
            remedy="sample under torch.no_grad() or torch.inference_mode(), or restore() to train",
        )


def require_eval(module: nn.Module) -> None:
    if module.training:
        raise ModeError(
            f"{type(module).__name__} is in train mode",
            where=type(module).__name__,
            remedy="call .eval() on it first; restore() it to train",
        )


def wants_gradients(module: nn.Module, call: Call) -> bool:
    return any(t.requires_grad for t in call.tensors) or any(
        p.requires_grad for p in module.parameters()
    )
