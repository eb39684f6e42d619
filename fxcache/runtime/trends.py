"""What a correction adds to each cached value, as the variants read it."""

from functools import lru_cache

import torch
from torch import Tensor

from fxcache.errors import PlanError
from fxcache.partition.cut import CutPlan
from fxcache.rewrite.adjustment import named_points
from fxcache.rewrite.correction import Correction
from fxcache.runtime.halves import equal_halves
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.schedule import Step
from fxcache.schedule.policy import require_length

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
        part: int | None = None,
    ) -> tuple[Tensor, ...]:
        """``[B, C]`` for each of these points: how it moved since it was cached.

        ``ages``: how many steps ago that was. ``like``: the cached values. ``part``: the one part
        of the batch that there is; None for all of it.
        """
        names = list(named_points(plan))
        found = zip(numbers, ages, like, strict=True)
        return tuple(
            self._sum(names[n], step.index - age, step.index, len(t), part, t.device, t.dtype)
            for n, (age, _), t in found
        )

    def require_length(self, step: Step) -> None:
        """ScheduleError unless the run is as long as those that the trends were measured on."""
        require_length("the correction", self._correction.num_steps, step)

    def require_fitting(self, trajectory: Trajectory, latents: Tensor) -> None:
        """PlanError where trends are of the halves of guided batches, and this is none.

        Looks at the first two steps of a run, as guided halves keep having the same latents.
        """
        if self._correction.parts < 2 or trajectory.step > 1:
            return
        trajectory.run.guidance_waits += latents.device.type != "cpu"
        if not equal_halves(latents):
            raise PlanError(
                "the correction was measured on guided batches, whose halves have the same "
                "latents; those of this batch differ",
                where=f"step {trajectory.step}",
                remedy="measure it again, with the guidance that it will be used with",
            )

    def _summed(
        self,
        name: str,
        cached: int,
        now: int,
        rows: int,
        part: int | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            trend = self._correction.trends[name][cached + 1 : now + 1].double().sum(0)
            if not self._correction.helps(now):
                trend = torch.zeros_like(trend)
            if part is not None and len(trend) > 1:
                trend = trend[part : part + 1]
            return trend.repeat_interleave(rows // len(trend), dim=0).to(device, dtype)
