"""Modules of torch.jit, which have no Python code to trace."""

import torch
from torch import nn

from fxcache.errors import CaptureError


def require_no_scripts(root: nn.Module) -> None:
    """Raise CaptureError if a submodule was made by torch.jit.script or torch.jit.trace."""
    for path, module in root.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(
                "the model contains a module of torch.jit, which has no Python code",
                where=path or type(root).__name__,
                remedy="use the module that it was made from",
            )
