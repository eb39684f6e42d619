"""Finds calls of an optimised module that are not for inference."""

import torch
from torch import nn

from fxcache.call import Call
from fxcache.errors import ModeError


def is_guided(call: Call) -> bool:
    """Return whether the caller wants gradients for an input, as some kinds of guidance do."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in call.tensors)


def require_inference(module: nn.Module) -> None:
    """Raise ModeError in train mode, or if the output would require gradients for weights."""
    require_eval(module)
    if torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
        raise ModeError(
            "gradients are wanted: grad mode is on, and weights require gradients",
            where=f"call of {type(module).__name__}",
            remedy="sample under torch.no_grad() or torch.inference_mode(), or restore() to train",
        )


def require_eval(module: nn.Module) -> None:
    """Raise ModeError if ``module`` computes other values in train mode, and is in it.

    Some pipelines leave their denoiser in train mode, which changes nothing without active layers.
    """
    if not module.training:
        return
    active = next(
        (p for p, m in module.named_modules() if m.training and acts_in_training(m)), None
    )
    if active is not None:
        raise ModeError(
            f"{type(module).__name__} is in train mode",
            where=active or type(module).__name__,
            remedy="call .eval() on it first; restore() it to train",
        )


def acts_in_training(module: nn.Module) -> bool:
    """Return whether ``module`` is a layer that computes other values in train mode."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
