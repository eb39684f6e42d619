"""Calibration: a measurement observes the values that a model computes without caching."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from torch import nn

from fxcache.calibration.block_caching import BlockChanges
from fxcache.calibration.magcache import Magnitudes
from fxcache.calibration.measurement import Measurement, Recording
from fxcache.calibration.smoothcache import LayerErrors
from fxcache.calibration.teacache import OutputChanges
from fxcache.errors import ConfigError, ScheduleError
from fxcache.partition.request import CutRequest
from fxcache.policies import Policy
from fxcache.runtime.engine import Engine
from fxcache.runtime.features.recording import RecordedStep, Recorder
from fxcache.runtime.module import attach, detach
from fxcache.runtime.record import Run
from fxcache.runtime.settings import RunLength, Settings

MEASUREMENTS: Mapping[type[Policy], type[Measurement]] = {
    kind.policy: kind for kind in (BlockChanges, LayerErrors, Magnitudes, OutputChanges)
}


def measurement_for(kind: type[Policy]) -> Measurement:
    """Return a new measurement for policies of ``kind``.

    Raises:
        ConfigError: Policies of this kind need no calibration.
    """
    if kind not in MEASUREMENTS:
        raise ConfigError(
            f"{getattr(kind, '__name__', kind)} is not calibrated",
            where="fxcache.calibrate",
            remedy=f"choose one of: {', '.join(k.__name__ for k in MEASUREMENTS)}",
        )
    return MEASUREMENTS[kind]()


@contextmanager
def recording(
    model: nn.Module, measurement: Measurement, cut: CutRequest, like: Engine | None = None
) -> Iterator[list[RunLength]]:
    """Measure the runs of ``model`` inside the block.

    All steps are computed in full, and the results are bitwise those of the original model.

    Args:
        model: The model.
        measurement: Observes each step.
        cut: The values to observe.
        like: An engine that ran the model before, whose captures are reused.

    Yields:
        The list that ``watched`` yields.

    Raises:
        ScheduleError: At the end of the block, as in ``watched``.
    """
    policy = Recording(like=measurement.policy, observation=measurement.observes)
    with watched(model, Settings(cut, policy), measurement.observe, like) as run_lengths:
        yield run_lengths


@contextmanager
def watched(
    model: nn.Module, settings: Settings, recorder: Recorder, like: Engine | None = None
) -> Iterator[list[RunLength]]:
    """Optimise ``model`` inside the block, and call ``recorder`` for each step of its runs.

    Args:
        model: The model.
        settings: The settings of the optimised model.
        recorder: Called after each step.
        like: An engine that ran the model before, whose captures are reused.

    Yields:
        A list that holds the ``run_lengths`` of a plan after the block.

    Raises:
        ScheduleError: At the end of the block, if there was no run of more than one step, or runs
            of different lengths. Single calls do not count.
    """
    engine = attach(model, settings.for_programs_of(model), like)
    lengths: dict[Run, int] = {}

    def observe(record: RecordedStep) -> None:
        lengths[record.run] = record.step + 1
        recorder(record)

    engine.recorder = observe
    run_lengths: list[RunLength] = []
    try:
        yield run_lengths
        run_lengths += engine.store.run_lengths()
    finally:
        detach(model)
    require_one_length(lengths.values(), type(model).__name__)


def require_one_length(lengths: Iterable[int], model: str) -> None:
    """Raise ScheduleError unless there were runs of more than one step, all of one length."""
    several = sorted({length for length in lengths if length > 1})
    if len(several) > 1:
        raise ScheduleError(
            f"runs of different lengths were seen: {', '.join(map(str, several))} steps",
            where=f"calibration of {model}",
            remedy="sample with the same number of steps in every run: the results depend on it",
        )
    if not several:
        raise ScheduleError(
            "no run of more than one step was seen",
            where=f"calibration of {model}",
            remedy="sample with this model; if its timesteps do not identify the steps, put the "
            "loop inside `with fxcache.session(model, num_steps=...):`",
        )


def calibrated(measurement: Measurement, options: Mapping[str, Any]) -> Policy:
    """Return the policy with the measured options. The user's ``options`` take precedence."""
    return measurement.policy(**{**measurement.options(), **options})


def require_options(kind: type[Policy], options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless policies of ``kind`` have these options."""
    names = {field.name for field in fields(kind)}
    if unknown := sorted(options.keys() - names):
        raise ConfigError(
            f"{kind.__name__} has no option {', '.join(unknown)}",
            where="fxcache.calibrate",
            remedy=f"its options are: {', '.join(sorted(names))}",
        )
