"""What a correction adds to each cached value, as the variants read it."""

from functools import lru_cache

import torch
from torch import Tensor

from fxcache.errors import ScheduleError
from fxcache.partition.cut import CutPlan
from fxcache.rewrite.adjustment import named_points
from fxcache.rewrite.correction import Correction
from fxcache.schedule import Step

KEPT = 4096


class Trends:
    """Sums of a correction's trends; equal ones are copied to a device once."""

    def __init__(self, correction: Correction):
        self._correction = correction
        self._sum = lru_cache(KEPT)(self._summed)

    def of(
        self,
        plan: CutPlan,
        numbers: tuple[int, ...],
        ages: tuple[tuple[int, int], ...],
        step: Step,
        like: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """``[C]`` for each of these points: how it moved since it was cached, so many steps ago."""
        self._require_length(step)
        names = list(named_points(plan))
        found = zip(numbers, ages, like, strict=True)
        return tuple(
            self._sum(names[number], step.index - age, step.index, t.device, t.dtype)
            for number, (age, _), t in found
        )

    def _summed(
        self, name: str, cached: int, now: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            trend = self._correction.trends[name][cached + 1 : now + 1].double().sum(0)
            return trend.to(device, dtype)

    def _require_length(self, step: Step) -> None:
        length = self._correction.num_steps
        if step.num_steps != length:
            raise ScheduleError(
                f"the correction was calibrated for runs of {length} steps; this run has "
                f"{step.num_steps or 'an unknown number of'} steps",
                where=f"step {step.index}",
                remedy="calibrate for this number of steps; where the loop does not tell it, open "
                "it with `with fxcache.session(model, num_steps=...):`",
            )
