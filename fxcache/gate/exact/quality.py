"""The similarity of a run's result with and without fxcache."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.errors import ConfigError
from fxcache.report.compare import likeness

EQUAL_DB = 100.0  # the PSNR of equal results
DECIMALS = {"psnr_db": 2, "ssim": 4}


def quality_of(original: Any, cached: Any) -> dict[str, float]:
    """Return the PSNR in dB, and for images the SSIM, of ``cached`` against ``original``.

    Both are lists of images or tensors of the same shape. The PSNR of tensors refers to the
    range of the original's values. Equal results count as 100 dB, results with NaN as 0 dB.

    Raises:
        ConfigError: The results are neither tensors nor images, or the original one has NaN.
    """
    if isinstance(original, Tensor):
        require_finite(original)
        found = {"psnr_db": psnr_db(original, cached)}
    elif isinstance(original, Sequence) and original and hasattr(original[0], "convert"):
        found = vars(likeness(original, cached))
    else:
        raise ConfigError(
            f"a run returned {type(original).__name__}, which has no known quality",
            where="fxcache gate",
            remedy="let the run return a tensor or a list of PIL images",
        )
    return {name: round(value, DECIMALS[name]) for name, value in found.items()}


def require_finite(original: Tensor) -> None:
    """Raise ConfigError if a result without fxcache has values that are not finite."""
    if not original.isfinite().all():
        raise ConfigError(
            "the result without fxcache is not finite",
            where="fxcache gate",
            remedy="gate a model with trained or scaled weights, and inputs that it can take",
        )


def psnr_db(original: Tensor, cached: Tensor) -> float:
    """Return the PSNR of ``cached`` in dB, with the range of the original's values as the peak."""
    first, second = original.double(), cached.double()
    if not second.isfinite().all():
        return 0.0
    error = torch.mean((first - second) ** 2).item()
    peak = (first.max() - first.min()).item()
    if error == 0 or peak == 0:
        return EQUAL_DB if error == 0 else 0.0
    return min(EQUAL_DB, 10 * math.log10(peak**2 / error))
