"""Finds the best schedule for a budget by dynamic programming over steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNITS = 100  # a full step costs 100 units; costs are rounded up to units


@dataclass(frozen=True)
class Solution:
    """A schedule.

    Attributes:
        reused: For each step, the cut that it reuses; None for a refresh.
        error: The predicted error.
        cost: The cost, as a multiple of a full step.
    """

    reused: tuple[str | None, ...]
    error: float
    cost: float


def solve(
    errors: Mapping[str, Tensor], costs: Mapping[str, float], budget: float
) -> Solution | None:
    """Find the schedule with the least error within a budget.

    For one step after the other, it computes the least error for each gap and each sum of costs.

    Args:
        errors: For each cut, a table ``[steps, gaps]``. Entry [s, g − 1] is the error of reusing
            the cut at step s, g steps after the last refresh; infinite if that is not allowed.
        costs: For each cut, the cost of a reuse step, as a multiple of a full step.
        budget: The greatest cost of the run, as a multiple of a full step.

    Returns:
        The schedule; None if there is none.
    """
    cuts = list(errors)
    steps, gaps = next(iter(errors.values())).shape
    units = [math.ceil(UNITS * costs[cut] - 1e-9) for cut in cuts]
    limit = math.floor(UNITS * budget + 1e-9)
    if limit < UNITS:
        return None
    best = torch.full((gaps + 1, limit + 1), math.inf, dtype=torch.float64)
    best[0, UNITS] = 0.0
    choices: list[Tensor] = []
    for step in range(1, steps):
        following, choice = advanced(best, [errors[cut][step] for cut in cuts], units)
        choices.append(choice)
        best = following
    gap, spent = divmod(int(best.argmin()), limit + 1)
    if math.isinf(best[gap, spent]):
        return None
    reused = traced(choices, cuts, units, gap, spent)
    return Solution(reused, float(best[gap, spent]), spent / UNITS)


def advanced(best: Tensor, errors: list[Tensor], units: list[int]) -> tuple[Tensor, Tensor]:
    """Return the least errors ``[gap, cost]`` one step later, and the choices that lead to them.

    A choice is the gap before a refresh, or the index of the reused cut.
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
    choices: list[Tensor], cuts: list[str], units: list[int], gap: int, spent: int
) -> tuple[str | None, ...]:
    """Trace the choices back from ``gap`` and ``spent`` after the last step."""
    reused: list[str | None] = []
    for choice in reversed(choices):
        chosen = int(choice[gap, spent])
        if gap == 0:
            reused.append(None)
            gap, spent = chosen, spent - UNITS
        else:
            reused.append(cuts[chosen])
            gap, spent = gap - 1, spent - units[chosen]
    return (None, *reversed(reused))
