"""Trials: real runs under the settings that the tuner tries."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.forecasts import Forecast
from fxcache.partition.request import CutRequest
from fxcache.policies import Policy
from fxcache.runtime.engine import Engine
from fxcache.runtime.module import attach, detach
from fxcache.runtime.settings import Settings

Sample = Callable[[], Any]


@dataclass(frozen=True)
class Trial:
    """The result of a real run under one schedule.

    Attributes:
        policy: The policy.
        cut: The cut.
        speedup: The FLOPs of the run without caching, divided by the FLOPs of this run.
        psnr_db: The PSNR of the result against the run without caching; infinite for equal results.
        predicted: The error that the profile predicts; None for a policy that is not a solution.
        forecast: The forecast of cached values; None for the policy's default.
    """

    policy: Policy
    cut: CutRequest
    speedup: float
    psnr_db: float
    predicted: float | None = None
    forecast: Forecast | None = None

    @property
    def broken(self) -> bool:
        """Whether the sampled result contains infinities or NaN."""
        return math.isnan(self.psnr_db)


class TrialRunner:
    """Runs one model under different settings, with one capture for all of them.

    Attributes:
        engine: The engine of the last run, whose captures the next run reuses; None before.
    """

    def __init__(self, model: nn.Module, sample: Sample) -> None:
        self._model, self._sample = model, sample
        self.engine: Engine | None = None

    @contextmanager
    def optimized(self, settings: Settings) -> Iterator[Engine]:
        """Optimise the model inside the block."""
        with optimized(self._model, settings, like=self.engine) as engine:
            self.engine = engine
            yield engine

    def run(self, settings: Settings) -> tuple[Tensor, Engine]:
        """Sample under ``settings``. Returns the result and the engine, which has the runs."""
        with self.optimized(settings) as engine:
            return as_tensor(self._sample()), engine


@contextmanager
def optimized(model: nn.Module, settings: Settings, like: Engine | None = None) -> Iterator[Engine]:
    """Optimise ``model`` inside the block, with the captures of the engine ``like``."""
    engine = attach(model, settings.for_programs_of(model), like)
    try:
        yield engine
    finally:
        detach(model)
        engine.clear()


def as_tensor(sampled: Any) -> Tensor:
    """Return the result of ``sample()`` as one tensor ``[N, …]``, float32, on the CPU."""
    return torch.as_tensor(sampled).detach().float().cpu()


def psnr_db(sampled: Tensor, original: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, averaged over the batch."""
    errors = (sampled - original).square().flatten(1).mean(dim=1)
    return float((-10 * errors.log10()).mean())
