"""Calibration of SmoothCache: the change of each kind of layer over several steps."""

from collections import deque
from collections.abc import Mapping
from statistics import fmean
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from fxcache.calibration.measurement import Means, Measurement, relative_l1
from fxcache.policies import SmoothCache
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.record import Run

MAX_GAP = 6  # the greatest number of steps over which a layer may be reused


class LayerErrors(Measurement):
    """Measures ‖L(x_s) − L(x_{s−g})‖₁ / ‖L(x_s)‖₁ for gaps g up to 6.

    SmoothCache (arXiv:2411.10510), equation 4. The result is averaged over the layers of a kind and
    over runs.
    """

    policy = SmoothCache

    def __init__(self) -> None:
        self._means = {gap: Means() for gap in range(1, MAX_GAP + 1)}
        self._last: WeakKeyDictionary[Run, deque[Mapping[str, tuple[Tensor, ...]]]] = (
            WeakKeyDictionary()
        )

    def observe(self, record: RecordedStep) -> None:
        last = self._last.setdefault(record.run, deque(maxlen=MAX_GAP))
        for kind, now in record.values.items():
            self._means[1].add(kind, 0, 0.0)
            for gap, before in enumerate(last, start=1):
                pairs = zip(now, before[kind], strict=True)
                self._means[gap].add(
                    kind, record.step, fmean(relative_l1((a,), (b,)) for a, b in pairs)
                )
        last.appendleft({k: tuple(t.clone() for t in v) for k, v in record.values.items()})

    def options(self) -> dict[str, Any]:
        length = self._means[1].length
        errors = {}
        for kind in self._means[1].keys:
            by_gap = [means.series(kind, length) for means in self._means.values()]
            steps = zip(*by_gap, strict=True)
            errors[kind] = tuple(errors_at[:step] for step, errors_at in enumerate(steps))
        return {"errors": errors}

    def to_dict(self) -> dict[str, Any]:
        return {str(gap): means.to_dict() for gap, means in self._means.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        for gap, means in self._means.items():
            means.load(state[str(gap)])
