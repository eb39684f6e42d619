"""The run without caching: the cuts to try, and whether the goal can be reached at all."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from fxcache.errors import CutError
from fxcache.partition.cut import Cut
from fxcache.partition.request import AUTO
from fxcache.policies import Explicit
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.settings import Settings
from fxcache.tuning.candidates import (
    candidates,
    cheapest,
    require_affordable,
    require_reachable,
    require_slower,
)
from fxcache.tuning.options import Options
from fxcache.tuning.trial import Sample, TrialRunner, as_tensor

TIMED_STEPS = 4  # after so many, a budget that no schedule meets is refused


@dataclass(frozen=True)
class Goal:
    """What must be possible, as far as it is known before the search.

    Args:
        speedup: The least speed-up, from FLOPs; None for any.
        budget_ms: The greatest time of all denoiser calls in a run, in milliseconds; None for any.
    """

    speedup: float | None = None
    budget_ms: float | None = None


def baseline(
    runner: TrialRunner, sample: Sample, options: Options, goal: Goal, name: str
) -> tuple[Tensor, dict[str, Cut]]:
    """Return the result without caching, and the cuts to try, by name.

    The run ends as soon as it is known that no schedule reaches the goal.

    Args:
        runner: Runs the model.
        sample: Runs the sampling loop.
        options: Options of the search.
        goal: What must be possible.
        name: The name of the model's class.

    Raises:
        CutError: There is no cut, or no schedule reaches the goal.
    """
    cuts: list[Cut] = []
    steps, gaps = 0, options.gaps

    def look(step: RecordedStep) -> None:
        nonlocal steps
        steps = max(steps, step.step + 1)
        if not cuts:
            cuts.extend(candidates(step.variants.frontier.cuts(), options.cuts))
            require_reachable(goal.speedup, cheapest(cuts), gaps)
        if len(step.run.steps) == TIMED_STEPS:  # the first one captures
            require_affordable(goal.budget_ms, step.run.times_ms(refresh=True)[1:], gaps, 1)

    result, times_ms = sampled(runner, sample, look)
    if not cuts:
        raise CutError(
            f"{name} was not called, or has no cut that saves FLOPs",
            where="tune",
            remedy="pass a sample() that runs the sampling loop of this model",
        )
    require_reachable(goal.speedup, cheapest(cuts), gaps, steps)
    require_affordable(goal.budget_ms, times_ms, gaps, steps)
    require_slower(goal.budget_ms, name, steps, median(times_ms))
    return result, {cut.name: cut for cut in cuts}


def sampled(
    runner: TrialRunner, sample: Sample, look: Callable[[RecordedStep], None]
) -> tuple[Tensor, list[float]]:
    """Sample without caching. Return the result, and the milliseconds of each step.

    Args:
        runner: Runs the model.
        sample: Runs the sampling loop.
        look: Called after each step.
    """
    policy = Explicit(steps=tuple(range(10_000)), last=1)  # the length must be known
    with runner.optimized(Settings(AUTO, policy)) as engine:
        engine.recorder = look
        result = as_tensor(sample())
        return result, [t for run in engine.runs for t in run.times_ms(refresh=True)]
