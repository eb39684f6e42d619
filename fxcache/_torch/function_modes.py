"""Access to the modes for torch functions that a caller has entered, such as a default device."""

from typing import Any

import torch

# Why: ``with torch.device(...)`` and ``torch.set_default_device`` enter this private mode.
from torch.utils._device import DeviceContext


def function_modes() -> tuple[object, ...]:
    """Return the modes for torch functions that are active, the outermost first.

    A default device is told by its name, any other mode by its class.

    Why: a graph contains what the modes did during its trace. No public function lists them.
    """
    count: int = torch._C._len_torch_function_stack()
    return tuple(key_of(torch._C._get_function_stack_at(i)) for i in range(count)) if count else ()


def key_of(mode: Any) -> object:
    """Return what tells ``mode`` from others."""
    return str(mode.device) if isinstance(mode, DeviceContext) else type(mode)
