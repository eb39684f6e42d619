"""Calibration of MagCache: the change of the residual's magnitude from step to step."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache.calibration.measurement import Means, Measurement
from fxcache.policies import MagCache
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.record import Run

RATIO = "ratio"
NO_ZERO = 1e-8  # added to divisors, as in the authors' code


class Magnitudes(Measurement):
    """Measures the mean over tokens of ‖r_s‖₂ / ‖r_{s−1}‖₂, averaged over runs.

    MagCache (arXiv:2506.09045), equation 4. A token is a vector along the last dimension, or a
    pixel of a feature map ``[B, C, H, W]``.
    """

    policy = MagCache

    def __init__(self) -> None:
        self._means = Means()
        self._last: WeakKeyDictionary[Run, tuple[Tensor, ...]] = WeakKeyDictionary()

    def observe(self, record: RecordedStep) -> None:
        norms = tuple(token_norms(v) for values in record.values.values() for v in values)
        last = self._last.get(record.run)
        ratio = 1.0
        if last:
            ratios = [(a / (b + NO_ZERO)).flatten() for a, b in zip(norms, last, strict=True)]
            ratio = float(torch.cat(ratios).mean())
        self._means.add(RATIO, record.step, ratio)
        self._last[record.run] = norms

    def options(self) -> dict[str, Any]:
        return {"ratios": self._means.series(RATIO, self._means.length)}

    def to_dict(self) -> dict[str, Any]:
        return {"means": self._means.to_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._means.load(state["means"])


def token_norms(value: Tensor) -> Tensor:
    """Return the Euclidean norm of each token."""
    return torch.linalg.vector_norm(value.float(), dim=1 if value.dim() == 4 else -1)
