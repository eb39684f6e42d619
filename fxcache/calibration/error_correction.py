"""Calibration of Error-Optimized Cache: the drift of cached values from step to step."""

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fxcache.calibration.calibration import watched
from fxcache.calibration.measurement import Means, Recording
from fxcache.calibration.plan import Plan
from fxcache.calibration.training import Sample, frozen
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.scale_shift import channel_dim
from fxcache.errors import PlanError
from fxcache.graph_inputs import InputKind
from fxcache.runtime.features.cfg_split import equal_halves
from fxcache.runtime.features.recording import RecordedStep, first_tensor
from fxcache.runtime.module import untouched
from fxcache.runtime.record import Run
from fxcache.runtime.settings import Settings

MEASURING_ROUND, JUDGING_ROUND = 0, 1  # the seeds of the two rounds of sampling


def measure(model: nn.Module, plan: Plan, sample: Sample) -> Plan:
    """Measure a drift correction for the cached values of ``plan``.

    The method is Error-Optimized Cache (arXiv:2501.19243). Round 0 samples without caching and
    measures the trend of each cache point: the mean change of each channel from step to step. If
    classifier-free guidance puts both halves into one batch, each half has its own trend. Round 1
    samples under the plan with the correction. The correction is kept for the steps at which it
    reduces the error of the prediction.

    Args:
        model: The model.
        plan: A plan for this model.
        sample: Runs the sampling loop of one round, with noise seeded by the index of the round.

    Returns:
        The plan with the correction.

    Raises:
        PlanError: The plan is for another model, or it has a forecast or an adjustment.
        StateError: The model is optimised.
        ScheduleError: There was no run, or runs of different lengths.
    """
    module = untouched(model, "error_correction.measure")
    plan.require_match(module)
    require_correctable(plan)
    changes = Changes()
    recording = Recording(like=type(plan.policy), observation=plan.policy.observes)
    with watched(module, Settings(plan.cut, recording), changes.observe):
        sample(MEASURING_ROUND)
    correction = DriftCorrection(changes.trends())
    judgement = Judgement()
    settings = Settings(plan.cut, plan.policy, correction=correction)
    with frozen(module), watched(module, settings, judgement.observe):
        sample(JUDGING_ROUND)
    return replace(plan, correction=judgement.applied(correction))


def require_correctable(plan: Plan) -> None:
    """Raise PlanError if a forecast or an adjustment of the plan already handles the drift."""
    if plan.forecast or plan.policy.default_forecast:
        raise PlanError(
            "the plan forecasts its cached values",
            where="error_correction.measure",
            remedy="use the plan as it is, or correct a plan without a forecast",
        )
    if plan.adjustment:
        raise PlanError(
            "the plan's adjustment was trained without a correction",
            where="error_correction.measure",
            remedy="measure the correction first, then train the adjustment",
        )


class Changes:
    """Measures the change of each cache point's channel means from step to step.

    In guided batches each half is measured separately, because guidance amplifies differences
    between the halves.
    """

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[Run, dict[str, Tensor]] = WeakKeyDictionary()
        self._changes: dict[str, dict[int, list[Tensor]]] = {}
        self._guided = True

    def observe(self, record: RecordedStep) -> None:
        self._guided = self._guided and equal_halves(record.latent)
        now = {
            f"{group}.{i}": channel_means(value)
            for group, values in record.values.items()
            for i, value in enumerate(values)
        }
        last = self._last.get(record.run, {})
        self._last[record.run] = now
        for name, before in last.items():
            by_step = self._changes.setdefault(name, {})
            by_step.setdefault(record.step, []).append(now[name] - before)

    def trends(self) -> dict[str, Tensor]:
        """Return the trend of each cache point: ``[steps, halves, C]``, float32."""
        return {name: self._trend(by_step) for name, by_step in self._changes.items()}

    def _trend(self, by_step: dict[int, list[Tensor]]) -> Tensor:
        even = all(len(change) % 2 == 0 for changes in by_step.values() for change in changes)
        parts = 2 if self._guided and even else 1
        means = [
            torch.cat([change.unflatten(0, (parts, -1)) for change in by_step[step]], 1).mean(1)
            for step in sorted(by_step)
        ]
        return torch.stack([torch.zeros_like(means[0]), *means]).float()


class Judgement:
    """Measures the squared error of the predictions with and without the correction, by step.

    In guided batches it measures the error of the difference between the halves, because guidance
    amplifies that difference. Errors that both halves share cancel there.
    """

    def __init__(self) -> None:
        self._with, self._without = Means(), Means()

    def observe(self, record: RecordedStep) -> None:
        signature = record.variant.signature
        if not signature.reads:
            return
        judged = guidance_of if equal_halves(record.latent) else torch.Tensor.float
        expected = judged(first_tensor(record.variants.full(*record.user_inputs)))
        uncorrected = [
            torch.zeros_like(t) if spec.source.kind is InputKind.COEFFICIENT else t
            for spec, t in zip(signature.inputs, record.inputs, strict=True)
        ]
        plain = first_tensor(record.variant.module(*uncorrected))
        self._with.add("error", record.step, float(mse_loss(judged(record.output), expected)))
        self._without.add("error", record.step, float(mse_loss(judged(plain), expected)))

    def applied(self, correction: DriftCorrection) -> DriftCorrection:
        """Return the correction, limited to the steps at which it reduced the error."""
        length = correction.num_steps
        pairs = zip(
            self._with.series("error", length), self._without.series("error", length), strict=True
        )
        helped = torch.tensor([corrected < plain for corrected, plain in pairs])
        return replace(correction, applied=helped)


def guidance_of(prediction: Tensor) -> Tensor:
    """Return the difference of the halves of a guided batch."""
    first, second = prediction.float().chunk(2)
    return first - second


def channel_means(value: Tensor) -> Tensor:
    """Return the mean of each channel: ``[rows, C]``, float64, on the CPU."""
    at = channel_dim(value.dim()) % value.dim()
    others = [d for d in range(1, value.dim()) if d != at]
    double = value.double()
    return (double.mean(others) if others else double).cpu()
