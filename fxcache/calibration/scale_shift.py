"""Train Block Caching's scale-shift adjustment: cached steps learn from uncached ones."""

from dataclasses import replace

from torch import Tensor, nn

from fxcache.calibration.calibration import watched
from fxcache.calibration.measurement import Recording
from fxcache.calibration.plan import Plan
from fxcache.calibration.training import (
    Learner,
    Options,
    Progress,
    Sample,
    error,
    frozen,
    gradients,
    look,
    quiet,
)
from fxcache.codecs.scale_shift import ScaleShift, zeros
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.module import untouched
from fxcache.runtime.settings import Settings


def train(
    model: nn.Module,
    plan: Plan,
    sample: Sample,
    options: Options | None = None,
    progress: Progress = quiet,
) -> Plan:
    """``plan`` with an adjustment of what its steps take from the cache.

    Block Caching (2312.03209, section 3.3): the student is ``model`` under the plan, along its own
    trajectory; at each step that reuses something the teacher is the uncached model at the same
    latent and timestep, and the linear layers, zero at first, learn to lower the mean squared
    error of the prediction. Nothing else changes. No gradient passes from step to step.

    Raises PlanError for another model's plan, StateError if the model is optimised, CutError if
    its blocks share no timestep embedding, ScheduleError where nothing is reused.
    """
    model = untouched(model, "scale_shift.train")
    plan.require_match(model)
    options = options or Options()
    start = unadjusted(model, plan, sample)
    learner = Learner({name: nn.Parameter(w) for name, w in start.items()}, options)

    def note(seen: RecordedStep) -> None:
        if seen.variant.signature.reads:
            with gradients():
                learner.update(error(seen))

    settings = Settings(
        plan.cut,
        plan.policy,
        plan.forecast,
        adjustment=ScaleShift(learner.parameters),
        correction=plan.correction,
    )
    if learner.rounds_left:
        with frozen(model), watched(model, settings, note):
            learner.train(sample, progress)
    found_by = {**plan.settings, "scale_shift": options.to_dict()}
    return replace(plan, adjustment=ScaleShift(learner.learned()), settings=found_by)


def unadjusted(model: nn.Module, plan: Plan, sample: Sample) -> dict[str, Tensor]:
    """The weights of an adjustment that changes nothing."""
    variants, _ = look(model, Settings(plan.cut, Recording(like=type(plan.policy))), sample)
    return zeros(variants.frontier, variants.plan)
