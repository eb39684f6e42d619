"""The error for a model that torch.export cannot trace."""

from torch import nn

from fxcache._torch import is_fully_sharded, is_special
from fxcache.capture.replacements import UntraceableError
from fxcache.capture.sharding import gathers_sizes
from fxcache.capture.source import source_line
from fxcache.errors import CaptureError


def refusal(module: nn.Module, error: Exception) -> CaptureError:
    """Return the CaptureError for the ``error`` of a trace, with the source line and a remedy."""
    own = error.remedy if isinstance(error, UntraceableError) else ""
    return CaptureError(
        f"torch.export cannot capture {type(module).__name__}: {reason_of(error)}",
        where=source_line(error),
        remedy=own or remedy_for(module),
    )


def remedy_for(module: nn.Module) -> str:
    """Return the most likely remedy for a failed trace of ``module``."""
    if any(p.is_inference() for p in module.parameters()):
        if is_fully_sharded(module):
            return "sample under torch.no_grad(): FSDP makes inference tensors in inference mode"
        return "load or move the model outside inference mode: its weights are inference tensors"
    if gathers_sizes(module):
        return (
            "leave out ulysses_anything and ring_anything, whose processes exchange sizes at each "
            "call, and choose sizes that the number of processes divides"
        )
    special = next(filter(is_special, module.parameters()), None)
    if special is not None:
        return (
            f"its weights are quantised ({type(special).__name__}): quantise the weights alone, or "
            "activations too with torchao; fxcache follows no quantised activation between layers"
        )
    if any("forward" in vars(submodule) for submodule in module.modules()):
        return (
            "remove the hooks from its submodules; those of accelerate and diffusers that offload "
            "or cast weights may stay"
        )
    return (
        "check that the model itself accepts these inputs; if it does, change that line so that it "
        "neither branches on tensor values nor leaves PyTorch (or report it to the model's authors)"
    )


def reason_of(error: Exception) -> str:
    """Return why a trace failed, in one line."""
    return str(error) if isinstance(error, UntraceableError) else first_line(error)


def first_line(error: Exception) -> str:
    """Return the type and the first line of the message of ``error``."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
