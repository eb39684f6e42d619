"""Makes torchvision importable where its operators do not load.

The index has torchvision for CUDA only. Beside torch for the CPU its operators do not load, and its
import fails, since it describes two of them to torch. The models here call none of them.
"""

import importlib
import importlib.util

import torch

ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = None  # torch forgets the operators of a library that is gone


def declare_missing_operators() -> None:
    """Declare the operators that torchvision's import needs, if it is there without them."""
    global _library
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(name + ARGUMENTS)
        importlib.import_module("torchvision")
