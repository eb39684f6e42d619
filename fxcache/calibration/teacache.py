"""Calibration of TeaCache: a polynomial from the change of the signal to that of the output."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import isfinite
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from fxcache.calibration.measurement import Measurement
from fxcache.errors import ScheduleError
from fxcache.policies import TeaCache
from fxcache.runtime.features.observation import relative_l1
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.record import Run

DEGREE = 4


class OutputChanges(Measurement):
    """Fits the polynomial by least squares over all steps of all runs, with degree 4 at most.

    TeaCache (arXiv:2411.19108), equation 6.
    """

    policy = TeaCache
    observes = TeaCache().observes

    def __init__(self) -> None:
        self._pairs: list[tuple[float, float]] = []
        self._last: WeakKeyDictionary[Run, tuple[Tensor, Tensor]] = WeakKeyDictionary()

    def observe(self, record: RecordedStep) -> None:
        assert record.signal is not None
        last = self._last.get(record.run)
        if last:
            signal, output = last
            change = relative_l1(record.signal, signal), relative_l1(record.output, output)
            self._pairs.append(change)
        self._last[record.run] = record.signal.clone(), record.output.clone()

    def options(self) -> dict[str, Any]:
        return {"coefficients": fitted(self._pairs)}

    def to_dict(self) -> dict[str, Any]:
        return {"pairs": self._pairs}

    def load(self, state: Mapping[str, Any]) -> None:
        self._pairs = [(x, y) for x, y in state["pairs"]]


def fitted(pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Fit a polynomial to ``pairs`` by least squares.

    Its degree is less than the number of distinct x values. It is computed in fractions: the normal
    equations of small changes and their fourth powers are too ill-conditioned for floating point,
    and the results of LAPACK vary between calls.

    Args:
        pairs: Pairs (x, y): the change of the signal and the change of the output.

    Returns:
        The coefficients, highest power first.

    Raises:
        ScheduleError: No pair is finite.
    """
    points = [(Fraction(x), Fraction(y)) for x, y in pairs if isfinite(x) and isfinite(y)]
    if not points:
        raise ScheduleError(
            "no step had a finite change of its signal and its output",
            where="calibration of TeaCache",
            remedy="check that the model does not return infinities or NaN",
        )
    degree = min(DEGREE, len({x for x, _ in points}) - 1)
    moments = [sum((x**power for x, _ in points), Fraction()) for power in range(2 * degree + 1)]
    rows = [
        [*moments[row : row + degree + 1], sum((y * x**row for x, y in points), Fraction())]
        for row in range(degree + 1)
    ]
    return tuple(float(coefficient) for coefficient in reversed(solved(rows)))


def solved(rows: list[list[Fraction]]) -> list[Fraction]:
    """Solve positive definite linear equations. Each row ends with its right-hand side."""
    for pivot, row in enumerate(rows):
        row[:] = [value / row[pivot] for value in row]
        for other in rows:
            if other is not row:
                other[:] = [a - other[pivot] * b for a, b in zip(other, row, strict=True)]
    return [row[-1] for row in rows]
