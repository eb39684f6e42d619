"""Error-Optimized Cache: how cached values move from step to step, where knowing that helps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from fxcache.runtime.module import require_not_optimized
from fxcache.runtime.record import Run
from fxcache.runtime.recorder import Seen
from fxcache.runtime.settings import Settings


def measure(model: nn.Module, plan: Plan, sample: Callable[[], object]) -> Plan:
    """``plan`` with a correction of what its steps take from the cache.

    Error-Optimized Cache (2501.19243): ``sample`` runs the model's sampling loop without caching,
    which shows the trend of each cache point at each step, here the mean change of each channel.
    It is applied where that lowers the error, judged by leaving one out: each row's change of the
    batch against the mean change of all others. There must be two or more.

    Raises PlanError for another model's plan, one that forecasts, or a single row; StateError if
    the model is optimised; ScheduleError if no run was seen.
    """
    require_eval(model)
    require_not_optimized(model, "error_correction.measure")
    plan.require_match(model)
    changes = Changes()
    recording = Recording(like=type(plan.policy))
    with watched(model, Settings(plan.cut, recording), changes.note):
        sample()
    return replace(plan, correction=Correction(changes.trends()))


@dataclass
class Sums:
    """Over ``count`` rows: of changes ``[C]``, and of their squares over all channels."""

    changes: Tensor
    squares: float = 0.0
    count: int = 0

    def add(self, changes: Tensor) -> None:
        """``changes``: [rows, C]."""
        self.changes = self.changes + changes.sum(0)
        self.squares += float(changes.square().sum())
        self.count += len(changes)

    @property
    def helps(self) -> bool:
        """Whether each row is nearer to the mean of the others than to 0, in the mean square.

        The mean of the others being (S − x) / (n − 1), the sum of squares left over is
        (n² Σx² − n S²) / (n − 1)².
        """
        n = self.count
        left = n * (n * self.squares - float(self.changes.square().sum())) / (n - 1) ** 2
        return left < self.squares

    @property
    def trend(self) -> Tensor:
        mean = self.changes / self.count
        return mean if self.helps else torch.zeros_like(mean)


class Changes:
    """How the mean of each cache point over its positions changes from step to step."""

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[Run, dict[str, Tensor]] = WeakKeyDictionary()
        self._sums: dict[str, dict[int, Sums]] = {}

    def note(self, seen: Seen) -> None:
        now = {
            f"{group}.{i}": channel_means(value)
            for group, values in seen.values.items()
            for i, value in enumerate(values)
        }
        last = self._last.get(seen.run, {})
        self._last[seen.run] = now
        for name, before in last.items():
            change = now[name] - before
            by_step = self._sums.setdefault(name, {})
            by_step.setdefault(seen.step, Sums(torch.zeros(change.shape[1:]))).add(change)

    def trends(self) -> dict[str, Tensor]:
        """Of each point, ``[steps, C]`` in single precision."""
        return {name: self._trend(by_step) for name, by_step in self._sums.items()}

    def _trend(self, by_step: dict[int, Sums]) -> Tensor:
        if any(sums.count < 2 for sums in by_step.values()):
            raise PlanError(
                "one picture tells no trend from its own course",
                where="error_correction.measure",
                remedy="sample two or more, in one batch or one after another",
            )
        first = torch.zeros_like(next(iter(by_step.values())).trend)
        return torch.stack([first, *(by_step[step].trend for step in sorted(by_step))]).float()


def channel_means(value: Tensor) -> Tensor:
    """``[rows, C]`` in double precision, on the CPU."""
    at = channel_dim(value.dim()) % value.dim()
    others = [d for d in range(1, value.dim()) if d != at]
    found = value.double()
    return (found.mean(others) if others else found).cpu()
