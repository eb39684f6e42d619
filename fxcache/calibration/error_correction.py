"""Error-Optimized Cache: how cached values move from step to step, where knowing that helps."""

from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fxcache.calibration.calibration import watched
from fxcache.calibration.measurement import Recording
from fxcache.calibration.plan import Plan
from fxcache.errors import PlanError
from fxcache.rewrite.adjustment import channel_dim
from fxcache.rewrite.correction import Correction
from fxcache.runtime.engine import require_eval
from fxcache.runtime.halves import equal_halves
from fxcache.runtime.module import require_not_optimized
from fxcache.runtime.record import Run
from fxcache.runtime.recorder import Seen
from fxcache.runtime.settings import Settings


def measure(model: nn.Module, plan: Plan, sample: Callable[[], object]) -> Plan:
    """``plan`` with a correction of what its steps take from the cache.

    Error-Optimized Cache (2501.19243): ``sample`` runs the model's sampling loop without caching,
    which shows the trend of each cache point at each step, here the mean change of each channel.
    It is applied where that lowers the error, judged by leaving one out: each picture's change
    against the mean change of all others. Where guidance puts both halves in one batch, each half
    has a trend of its own.

    Raises PlanError for another model's plan, one that forecasts, or a single picture; StateError
    if the model is optimised; ScheduleError if no run was seen.
    """
    require_eval(model)
    require_not_optimized(model, "error_correction.measure")
    plan.require_match(model)
    changes = Changes()
    recording = Recording(like=type(plan.policy))
    with watched(model, Settings(plan.cut, recording), changes.note):
        sample()
    return replace(plan, correction=Correction(changes.trends()))


class Sums:
    """Over the rows of each part of the batch: of changes, and of their squares.

    ``changes``: [parts, C]; ``count``: rows in each part.
    """

    def __init__(self, parts: int, channels: int) -> None:
        self.changes = torch.zeros(parts, channels, dtype=torch.float64)
        self.squares, self.count = 0.0, 0

    def add(self, changes: Tensor) -> None:
        """``changes``: [parts, rows, C]."""
        self.changes += changes.sum(1)
        self.squares += float(changes.square().sum())
        self.count += changes.shape[1]

    @property
    def helps(self) -> bool:
        """Whether rows are nearer to the mean of their part's others than to 0, in mean square.

        The mean of the others being (S − x) / (n − 1), the sum of squares left over is
        (n² Σx² − n S²) / (n − 1)².
        """
        n = self.count
        left = n * (n * self.squares - float(self.changes.square().sum())) / (n - 1) ** 2
        return left < self.squares

    @property
    def trend(self) -> Tensor:
        """[parts, C]."""
        mean = self.changes / self.count
        return mean if self.helps else torch.zeros_like(mean)


class Changes:
    """How the mean of each cache point over its positions changes from step to step.

    In guided batches, of each half: guidance amplifies what differs between them.
    """

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[Run, dict[str, Tensor]] = WeakKeyDictionary()
        self._changes: dict[str, dict[int, list[Tensor]]] = {}
        self._guided = True

    def note(self, seen: Seen) -> None:
        self._guided = self._guided and equal_halves(seen.latent)
        now = {
            f"{group}.{i}": channel_means(value)
            for group, values in seen.values.items()
            for i, value in enumerate(values)
        }
        last = self._last.get(seen.run, {})
        self._last[seen.run] = now
        for name, before in last.items():
            by_step = self._changes.setdefault(name, {})
            by_step.setdefault(seen.step, []).append(now[name] - before)

    def trends(self) -> dict[str, Tensor]:
        """Of each point, ``[steps, parts, C]`` in single precision."""
        return {name: self._trend(by_step) for name, by_step in self._changes.items()}

    def _trend(self, by_step: dict[int, list[Tensor]]) -> Tensor:
        found = [self._sums(by_step[step]) for step in sorted(by_step)]
        if any(sums.count < 2 for sums in found):
            raise PlanError(
                "one picture tells no trend from its own course",
                where="error_correction.measure",
                remedy="sample two or more, in one batch or one after another",
            )
        trends = [sums.trend for sums in found]
        return torch.stack([torch.zeros_like(trends[0]), *trends]).float()

    def _sums(self, changes: list[Tensor]) -> Sums:
        halved = self._guided and all(len(change) % 2 == 0 for change in changes)
        parts = 2 if halved else 1
        sums = Sums(parts, changes[0].shape[1])
        for change in changes:
            sums.add(change.unflatten(0, (parts, -1)))
        return sums


def channel_means(value: Tensor) -> Tensor:
    """``[rows, C]`` in double precision, on the CPU."""
    at = channel_dim(value.dim()) % value.dim()
    others = [d for d in range(1, value.dim()) if d != at]
    found = value.double()
    return (found.mean(others) if others else found).cpu()
