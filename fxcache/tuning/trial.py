"""Real runs under the settings that the tuner tries."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.forecasts import Forecast
from fxcache.partition.choose import CutRequest
from fxcache.policies import Policy
from fxcache.runtime.engine import Engine
from fxcache.runtime.module import attach, detach
from fxcache.runtime.settings import Settings

Sample = Callable[[], Any]


@dataclass(frozen=True)
class Trial:
    """One schedule tried by a real run.

    Attributes:
        policy: What was tried.
        cut: What was cached.
        speedup: FLOPs without caching over FLOPs spent.
        psnr_db: Of what was sampled against the uncached run; infinite where they are equal.
        predicted: The error that the profile foretold; None for policies that were not solved for.
        forecast: How cached values were extrapolated; None for as the policy's method does.
    """

    policy: Policy
    cut: CutRequest
    speedup: float
    psnr_db: float
    predicted: float | None = None
    forecast: Forecast | None = None

    @property
    def broken(self) -> bool:
        """Whether what was sampled is no picture: infinities or NaN."""
        return math.isnan(self.psnr_db)


class TrialRunner:
    """Runs one model under one settings after another, and captures it once for all of them.

    Attributes:
        engine: That of the last run; its captures serve the next one.
    """

    def __init__(self, model: nn.Module, sample: Sample) -> None:
        self._model, self._sample = model, sample
        self.engine: Engine | None = None

    @contextmanager
    def optimized(self, settings: Settings) -> Iterator[Engine]:
        """The model is optimised inside the block."""
        with optimized(self._model, settings, like=self.engine) as engine:
            self.engine = engine
            yield engine

    def run(self, settings: Settings) -> tuple[Tensor, Engine]:
        """What is sampled under ``settings``, and the engine with the runs."""
        with self.optimized(settings) as engine:
            return as_tensor(self._sample()), engine


@contextmanager
def optimized(model: nn.Module, settings: Settings, like: Engine | None = None) -> Iterator[Engine]:
    """``model`` is optimised inside the block; ``like``: whose captures it takes over."""
    engine = attach(model, settings, like)
    try:
        yield engine
    finally:
        detach(model)
        engine.clear()


def as_tensor(sampled: Any) -> Tensor:
    """What ``sample()`` returned, as one tensor ``[N, …]``."""
    return torch.as_tensor(sampled).detach().float().cpu()


def psnr_db(sampled: Tensor, original: Tensor) -> float:
    """Peak signal-to-noise ratio for a peak of 1, averaged over the batch."""
    errors = (sampled - original).square().flatten(1).mean(dim=1)
    return float((-10 * errors.log10()).mean())
