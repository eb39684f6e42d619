"""The environment of a measurement."""

import platform

import torch


def environment(device: str) -> dict[str, str]:
    """Return the name of the device, and the versions of Python and torch."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}
