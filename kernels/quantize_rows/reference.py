"""The reference in plain PyTorch. It is the oracle of the tests, and runs on the CPU."""

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def quantize_rows(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return steps ``[R, N]`` in this dtype and float32 scales ``[R, 1]``, 1 for rows of zeros."""
    exact = rows.float()
    absmax = exact.abs().amax(-1, keepdim=True)
    scale = absmax / LARGEST[dtype]
    scale = torch.where(scale == 0, 1.0, scale)  # rows of zeros, or absmax / LARGEST underflows
    steps = exact / scale
    return (steps.round() if dtype is torch.int8 else steps).to(dtype), scale
