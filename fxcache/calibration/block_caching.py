"""Calibration of Block Caching: the change of each block's residual branch from step to step."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from fxcache.calibration.measurement import Means, Measurement, relative_l1
from fxcache.policies import BlockCaching
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.record import Run


class BlockChanges(Measurement):
    """Measures ‖C(x_s) − C(x_{s−1})‖₁ / ‖C(x_s)‖₁ of each block, averaged over runs.

    Block Caching (arXiv:2312.03209), equation 2.
    """

    policy = BlockCaching

    def __init__(self) -> None:
        self._means = Means()
        self._last: WeakKeyDictionary[Run, Mapping[str, tuple[Tensor, ...]]] = WeakKeyDictionary()

    def observe(self, record: RecordedStep) -> None:
        last = self._last.get(record.run)
        for block, now in record.values.items():
            change = relative_l1(now, last[block]) if last else 0.0
            self._means.add(block, record.step, change)
        self._last[record.run] = {k: tuple(t.clone() for t in v) for k, v in record.values.items()}

    def options(self) -> dict[str, Any]:
        means = self._means
        return {"changes": {block: means.series(block, means.length) for block in means.keys}}

    def to_dict(self) -> dict[str, Any]:
        return {"means": self._means.to_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._means.load(state["means"])
