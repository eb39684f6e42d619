"""Measures how strongly an error at one step changes the result of the whole run."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fxcache.errors import CutError
from fxcache.policies import Explicit
from fxcache.tuning.trial import Trial

TINY = 1e-20


def sensitivity(local: Sequence[float], probes: int, tried: Callable[[Explicit], Trial]) -> Tensor:
    """The squared error of the result relative to that of one step: ``[steps, 1]``.

    It is measured by runs that reuse values at a single step, and interpolated between them.

    Args:
        local: For each step, the squared error of the step that reuses the values of the step
            before.
        probes: How many runs to make.
        tried: Samples under a schedule.

    Raises:
        CutError: No run gives a result of numbers.
    """
    steps, ratios = len(local), {}
    count = min(probes, steps - 1)
    for step in torch.linspace(1, steps - 1, count).round().long().unique().tolist():
        trial = tried(Explicit(steps=tuple(s for s in range(steps) if s != step)))
        error = 10 ** (-trial.psnr_db / 10)
        if not trial.broken:
            ratios[step] = max(error, TINY) / max(local[step], TINY)
    if not ratios:
        raise CutError(
            "the sampled result contains infinities or NaN, whichever step reuses values",
            where="tune",
            remedy="check the result of sample() without caching",
        )
    return interpolated(list(ratios), list(ratios.values()), steps)[:, None]


def interpolated(at: Sequence[int], values: Sequence[float], length: int) -> Tensor:
    """Interpolate ``values`` at the steps ``at`` to all steps, linearly in the logarithm."""
    logarithms = torch.empty(length, dtype=torch.float64)
    for step in range(length):
        after = next((i for i, s in enumerate(at) if s >= step), len(at) - 1)
        before = max(after - 1, 0) if at[after] != step else after
        span = at[after] - at[before]
        share = min(max((step - at[before]) / span, 0.0), 1.0) if span else 0.0
        low, high = math.log(values[before]), math.log(values[after])
        logarithms[step] = low * (1 - share) + high * share
    return logarithms.exp()
