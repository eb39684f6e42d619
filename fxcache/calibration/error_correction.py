"""Error-Optimized Cache: how cached values move from step to step, where knowing that helps."""

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

MEASURED, JUDGED = 0, 1  # the rounds


def measure(model: nn.Module, plan: Plan, sample: Sample) -> Plan:
    """``plan`` with a correction of what its steps take from the cache.

    Error-Optimized Cache (2501.19243). ``sample(round)`` runs the model's sampling loop, its noise
    seeded by the round. Round 0 is without caching, and shows the trend of each cache point: the
    mean change of each channel from step to step. Where guidance puts both halves in one batch,
    each half has a trend of its own. Round 1 is under the plan and so corrected; the correction
    stays at those steps where the prediction errs less with it than without.

    Raises PlanError for another model's plan, or one that forecasts or is adjusted, StateError if
    the model is optimised, ScheduleError if no run was seen, or runs of different lengths.
    """
    module = untouched(model, "error_correction.measure")
    plan.require_match(module)
    require_correctable(plan)
    changes = Changes()
    recording = Recording(like=type(plan.policy), observation=plan.policy.observes)
    with watched(module, Settings(plan.cut, recording), changes.note):
        sample(MEASURED)
    correction = DriftCorrection(changes.trends())
    judgement = Judgement()
    settings = Settings(plan.cut, plan.policy, correction=correction)
    with frozen(module), watched(module, settings, judgement.note):
        sample(JUDGED)
    return replace(plan, correction=judgement.applied(correction))


def require_correctable(plan: Plan) -> None:
    """PlanError where something else takes care of the drift."""
    if plan.forecast or plan.policy.default_forecast:
        raise PlanError(
            "the plan forecasts what it reuses",
            where="error_correction.measure",
            remedy="use the plan as it is, or one without a forecast",
        )
    if plan.adjustment:
        raise PlanError(
            "the plan's adjustment was trained without a correction",
            where="error_correction.measure",
            remedy="correct first, then train",
        )


class Changes:
    """How the mean of each cache point over its positions changes from step to step.

    In guided batches, of each half: guidance amplifies what differs between them.
    """

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[Run, dict[str, Tensor]] = WeakKeyDictionary()
        self._changes: dict[str, dict[int, list[Tensor]]] = {}
        self._guided = True

    def note(self, seen: RecordedStep) -> None:
        self._guided = self._guided and equal_halves(seen.latent)
        now = {
            f"{group}.{i}": channel_means(value)
            for group, values in seen.values.items()
            for i, value in enumerate(values)
        }
        last = self._last.get(seen.run, {})
        self._last[seen.run] = now
        for name, before in last.items():
            by_step = self._changes.setdefault(name, {})
            by_step.setdefault(seen.step, []).append(now[name] - before)

    def trends(self) -> dict[str, Tensor]:
        """Of each point, ``[steps, parts, C]`` in single precision."""
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
    """By step, the squared errors of predictions with the correction and without.

    Of guided batches, the errors of what guidance amplifies. Errors that both halves share cancel
    there; a correction that lowers each may well leave more of them.
    """

    def __init__(self) -> None:
        self._with, self._without = Means(), Means()

    def note(self, seen: RecordedStep) -> None:
        signature = seen.variant.signature
        if not signature.reads:
            return
        judged = guidance_of if equal_halves(seen.latent) else torch.Tensor.float
        expected = judged(first_tensor(seen.variants.full(*seen.user_inputs)))
        uncorrected = [
            torch.zeros_like(t) if spec.source.kind is InputKind.COEFFICIENT else t
            for spec, t in zip(signature.inputs, seen.inputs, strict=True)
        ]
        plain = first_tensor(seen.variant.module(*uncorrected))
        self._with.add("error", seen.step, float(mse_loss(judged(seen.output), expected)))
        self._without.add("error", seen.step, float(mse_loss(judged(plain), expected)))

    def applied(self, correction: DriftCorrection) -> DriftCorrection:
        """At the steps where it helped."""
        length = correction.num_steps
        pairs = zip(
            self._with.series("error", length), self._without.series("error", length), strict=True
        )
        helped = torch.tensor([corrected < plain for corrected, plain in pairs])
        return replace(correction, applied=helped)


def guidance_of(prediction: Tensor) -> Tensor:
    """The difference of the halves of a guided batch."""
    first, second = prediction.float().chunk(2)
    return first - second


def channel_means(value: Tensor) -> Tensor:
    """``[rows, C]`` in double precision, on the CPU."""
    at = channel_dim(value.dim()) % value.dim()
    others = [d for d in range(1, value.dim()) if d != at]
    found = value.double()
    return (found.mean(others) if others else found).cpu()
