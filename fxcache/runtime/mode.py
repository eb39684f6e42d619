"""Finds calls of an optimised module that are not for inference."""

import torch
from torch import Tensor, nn

from fxcache._torch import is_fake, is_transformed
from fxcache.call import Call
from fxcache.errors import ModeError

GRADIENTS = (
    "some calls want gradients for their inputs, and run the original model",
    "If no gradients are needed, sample under torch.no_grad().",
)
TRANSFORMS = (
    "some calls run inside a transform of torch.func, and run the original model",
    "If that is not intended, call the model outside of vmap, grad and jvp.",
)
FAKES = (
    "some calls pass fake tensors, and run the original model",
    "If that is not intended, pass tensors with values.",
)


def reason_for_original(call: Call) -> tuple[str, str] | None:
    """Return why the original model must run a call, and a remedy; None if graphs can run it.

    Graphs compute no gradients, and cached values are plain tensors.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in call.tensors):
        return GRADIENTS
    if is_transformed():
        return TRANSFORMS
    for tensor in call.tensors:  # faster than any()
        if type(tensor) is not Tensor and is_fake(tensor):
            return FAKES
    return None


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
