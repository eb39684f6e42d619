"""Trains the scale-shift adjustment of Block Caching."""

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
    quiet,
    sample_once,
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
    """Train a scale-shift adjustment for the cached values of ``plan``.

    The method is that of Block Caching (arXiv:2312.03209, section 3.3). The student is the model
    under the plan, on its own trajectory. At each step that reuses values, the teacher is the
    uncached model at the same latent and timestep. Linear layers, initialised to zero, learn to
    reduce the mean squared error of the prediction. No gradient passes between steps.

    Args:
        model: The model. Its weights do not change.
        plan: A plan for this model.
        sample: Runs the sampling loop of one round, with noise seeded by the index of the round.
        options: Options of the training.
        progress: Called after each round.

    Returns:
        The plan with the adjustment.

    Raises:
        PlanError: The plan is for another model.
        StateError: The model is optimised.
        CutError: The blocks share no timestep embedding.
        ScheduleError: No step reuses anything.
    """
    model = untouched(model, "scale_shift.train")
    plan.require_match(model)
    options = options or Options()
    start = unadjusted(model, plan, sample)
    learner = Learner({name: nn.Parameter(w) for name, w in start.items()}, options)

    def observe(record: RecordedStep) -> None:
        if record.variant.signature.reads:
            with gradients():
                learner.update(error(record))

    settings = Settings(
        plan.cut,
        plan.policy,
        plan.forecast,
        adjustment=ScaleShift(learner.parameters),
        correction=plan.correction,
    )
    if learner.rounds_left:
        with frozen(model), watched(model, settings, observe):
            learner.train(sample, progress)
    settings_used = {**plan.settings, "scale_shift": options.to_dict()}
    return replace(plan, adjustment=ScaleShift(learner.learned()), settings=settings_used)


def unadjusted(model: nn.Module, plan: Plan, sample: Sample) -> dict[str, Tensor]:
    """Return the initial weights of an adjustment: zeros, which change nothing."""
    variants, _ = sample_once(model, Settings(plan.cut, Recording(like=type(plan.policy))), sample)
    return zeros(variants.frontier, variants.plan)
