"""The best schedule for a budget: dynamic programming over steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNITS = 100  # of cost in one full step: costs are rounded up to hundredths


@dataclass(frozen=True)
class Solution:
    """``reused``: for each step, the cut that it takes from the cache; None where it refreshes.

    ``error``: what the profile predicts; ``cost``: in full steps.
    """

    reused: tuple[str | None, ...]
    error: float
    cost: float


def solve(
    errors: Mapping[str, Tensor], costs: Mapping[str, float], budget: float
) -> Solution | None:
    """The schedule of least error that costs at most ``budget`` full steps; None if there is none.

    ``errors[cut][s, g − 1]``: what reusing ``cut`` at step s costs in quality, g steps after the
    last refresh; infinite where it may not. ``costs[cut]``: of such a step, in full steps. The
    least error of every gap and sum of costs is found for one step after the other.
    """
    cuts = list(errors)
    steps, gaps = next(iter(errors.values())).shape
    units = [math.ceil(UNITS * costs[cut] - 1e-9) for cut in cuts]
    limit = math.floor(UNITS * budget + 1e-9)
    if limit < UNITS:
        return None
    best = torch.full((gaps + 1, limit + 1), math.inf, dtype=torch.float64)
    best[0, UNITS] = 0.0
    came: list[Tensor] = []
    for step in range(1, steps):
        following, choice = advanced(best, [errors[cut][step] for cut in cuts], units)
        came.append(choice)
        best = following
    gap, spent = divmod(int(best.argmin()), limit + 1)
    if math.isinf(best[gap, spent]):
        return None
    found = traced(came, cuts, units, gap, spent)
    return Solution(found, float(best[gap, spent]), spent / UNITS)


def advanced(best: Tensor, errors: list[Tensor], units: list[int]) -> tuple[Tensor, Tensor]:
    """The least errors ``[gap, cost]`` one step later, and by which choice.

    A choice is the gap before a refresh, or the number of the cut that is reused.
    """
    following = torch.full_like(best, math.inf)
    choice = torch.zeros(best.shape, dtype=torch.int16)
    refreshed, gap = best.min(dim=0)
    following[0, UNITS:] = refreshed[:-UNITS]
    choice[0, UNITS:] = gap[:-UNITS].to(torch.int16)
    for number, (error, unit) in enumerate(zip(errors, units, strict=True)):
        if unit >= best.shape[1]:
            continue
        reused = torch.full_like(best[1:], math.inf)
        reused[:, unit:] = best[:-1, : best.shape[1] - unit] + error[:, None]
        better = reused < following[1:]
        following[1:][better] = reused[better]
        choice[1:][better] = number
    return following, choice


def traced(
    came: list[Tensor], cuts: list[str], units: list[int], gap: int, spent: int
) -> tuple[str | None, ...]:
    """The choices that led to ``gap`` and ``spent`` after the last step."""
    found: list[str | None] = []
    for choice in reversed(came):
        chosen = int(choice[gap, spent])
        if gap == 0:
            found.append(None)
            gap, spent = chosen, spent - UNITS
        else:
            found.append(cuts[chosen])
            gap, spent = gap - 1, spent - units[chosen]
    return (None, *reversed(found))
