"""What figures were measured on."""

import platform

import torch


def environment(device: str) -> dict[str, str]:
    """The device by name, and the versions that matter."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}
