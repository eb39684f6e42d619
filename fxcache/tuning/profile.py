"""The error profile: the error of reusing each cut, by step and by age of the cached value."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache.calibration.measurement import Means, Measurement
from fxcache.codecs.codec import entries_of
from fxcache.policies import Scheduled
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.record import Run

Values = tuple[Tensor, ...]


class Profile(Measurement):
    """Measures the mean squared error of predictions that reuse each cut.

    Trajectories are those of runs without caching. At each step the model predicts once in full,
    then for each cut with the values of 1 … ``gaps`` steps before. The values are reused as they
    are, and extrapolated by Taylor series up to ``order``. A forecast over a gap assumes that
    refreshes are gap + 1 steps apart.

    Args:
        gaps: The greatest age of a reused value, in steps.
        order: The highest order of forecasts; 0 for none.
    """

    policy = Scheduled

    def __init__(self, gaps: int, order: int) -> None:
        self.gaps, self.order = gaps, order
        self._means = Means()
        self._past: WeakKeyDictionary[Run, deque[Mapping[str, Values]]] = WeakKeyDictionary()

    def observe(self, record: RecordedStep) -> None:
        memory = self.gaps + self.order * (self.gaps + 1)
        past = self._past.setdefault(record.run, deque(maxlen=memory))
        self._means.add("steps", record.step, 0.0)
        for cut in record.values:
            for order in range(self.order + 1):
                for gap in range(1, min(self.gaps, len(past)) + 1):
                    values = forecast([at[cut] for at in past], gap, order)
                    error = self._error(record, cut, values)
                    self._means.add(name(cut, order, gap), record.step, error)
        past.appendleft({k: tuple(t.clone() for t in v) for k, v in record.values.items()})

    def _error(self, record: RecordedStep, cut: str, values: Values) -> float:
        """Return the mean squared error of the prediction that reuses ``values`` for ``cut``."""
        variant = record.variants.variant(frozenset({cut}))
        stored = entries_of(dict(zip(variant.signature.reads, values, strict=True)))
        results = variant.module(*variant.signature.bind(record.user_inputs, cached=stored))
        output = next(r for r in results if isinstance(r, Tensor))
        return float((output.float() - record.output.float()).square().mean())

    def errors(self, cut: str, order: int) -> Tensor:
        """Return the errors ``[steps, gaps]``, infinite where no value is old enough."""
        steps = self._means.length
        table = torch.full((steps, self.gaps), math.inf, dtype=torch.float64)
        for gap in range(1, self.gaps + 1):
            series = self._means.series(name(cut, order, gap), steps)
            table[gap:, gap - 1] = torch.tensor(series[gap:], dtype=torch.float64)
        return table

    @property
    def steps(self) -> int:
        """The number of steps of the runs."""
        return self._means.length

    def options(self) -> dict[str, Any]:
        return {}

    def to_dict(self) -> dict[str, Any]:
        return {"means": self._means.to_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._means.load(state["means"])


def name(cut: str, order: int, gap: int) -> str:
    """Return the key of the means for one cut, order and gap."""
    return f"{cut} order {order} gap {gap}"


def forecast(past: Sequence[Values], gap: int, order: int) -> Values:
    """Extrapolate the values of ``gap`` steps ago to the current step.

    Args:
        past: The values of earlier steps, the last step first.
        gap: The age of the values, in steps.
        order: The order of the Taylor series; less if the past is too short.
    """
    distance = gap + 1
    known = min(order, (len(past) - gap) // distance)
    at = [past[gap - 1 + i * distance] for i in range(known + 1)]
    derivatives = list(at)
    for level in range(1, known + 1):
        for i in range(known - level + 1):
            pairs = zip(derivatives[i], derivatives[i + 1], strict=True)
            derivatives[i] = tuple((a - b) / distance for a, b in pairs)
        weight = gap**level / math.factorial(level)
        at[0] = tuple(a + weight * d for a, d in zip(at[0], derivatives[0], strict=True))
    return at[0]
