"""Finds the operators of ``kernels/``, and says where they replace operators of ATen."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

DEVICES: tuple[str, ...] = ("cuda",)  # on other devices the operators of ATen stay
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def operator_of(kernel: str, name: str = "") -> Any:
    """Return an operator from a folder in ``kernels/``. It is registered at the first use.

    Args:
        kernel: The name of the folder.
        name: The name of the operator if it differs from that of the folder.
    """
    import_module(f"fxcache.kernels.{kernel}.op")
    return getattr(torch.ops.fxcache, name or kernel).default


def can_take(*tensors: Tensor) -> bool:
    """Return whether kernels support the device and the common dtype of ``tensors``."""
    dtypes = {tensor.dtype for tensor in tensors}
    here = all(tensor.device.type in DEVICES for tensor in tensors)
    return here and len(dtypes) == 1 and dtypes <= set(DTYPES)
