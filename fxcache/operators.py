"""Where the operators of ``kernels/`` take the place of ATen's, and how one is found."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

DEVICES: tuple[str, ...] = ("cuda",)  # elsewhere ATen's own ops are kept
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def operator_of(kernel: str, name: str = "") -> Any:
    """The operator of a folder in ``kernels/``, registered now: with it Triton is imported.

    ``name``: of another one in the same folder.
    """
    import_module(f"fxcache.kernels.{kernel}.op")
    return getattr(torch.ops.fxcache, name or kernel).default


def can_take(*tensors: Tensor) -> bool:
    """Whether kernels run where these are, and know their one dtype."""
    dtypes = {tensor.dtype for tensor in tensors}
    here = all(tensor.device.type in DEVICES for tensor in tensors)
    return here and len(dtypes) == 1 and dtypes <= set(DTYPES)
