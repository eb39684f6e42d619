"""The same in plain PyTorch: the oracle of the tests, and what runs on the CPU."""

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def quantize_rows(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Steps ``[R, N]`` of this dtype and float32 scales ``[R, 1]``, 1 for rows of zeros."""
    exact = rows.float()
    absmax = exact.abs().amax(-1, keepdim=True)
    scale = absmax / LARGEST[dtype]
    scale = torch.where(scale == 0, 1.0, scale)  # of zeros, or of what is as good as zero
    steps = exact / scale
    return (steps.round() if dtype is torch.int8 else steps).to(dtype), scale
