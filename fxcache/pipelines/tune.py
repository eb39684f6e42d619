"""Tunes a diffusers pipeline from prompts, and compares the best plan with others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fxcache.calibration.plan import Plan
from fxcache.errors import ConfigError, CutError
from fxcache.integrations.diffusers import denoiser_of
from fxcache.partition.request import AUTO
from fxcache.pipelines.calibrate import Sampling
from fxcache.policies import NonUniform, Policy, TaylorSeer, Uniform
from fxcache.report.pareto import Point, draw_pareto
from fxcache.tuning.options import Options
from fxcache.tuning.trial import Trial
from fxcache.tuning.tune import Tuner

INTERVALS = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Target:
    """The target of the tuner. Exactly one field is set.

    Args:
        speedup: The least speed-up of the denoiser, from FLOPs.
        psnr_db: The least PSNR in dB against the uncached run.
        budget_ms: The greatest time of all denoiser calls in a run, in milliseconds.

    Raises:
        ConfigError: Not exactly one field is set, or it is not positive.
    """

    speedup: float | None = None
    psnr_db: float | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        targets = {name: value for name, value in vars(self).items() if value is not None}
        if len(targets) != 1 or min(targets.values()) <= 0:
            raise ConfigError(
                f"the target is {targets or 'missing'}",
                where="tune",
                remedy="pass exactly one of speedup, psnr and budget-ms, above 0",
            )


@dataclass(frozen=True)
class Tuned:
    """The result of the tuner.

    Attributes:
        plan: The best plan.
        trial: The real run under this plan.
        curves: Speed-up and PSNR of all trials, by the name of the policy.
    """

    plan: Plan
    trial: Trial
    curves: Mapping[str, Sequence[Point]]

    def to_dict(self) -> dict[str, Any]:
        """Return the trial and the curves as a dict that can be written as JSON."""
        curves = {
            name: [point._asdict() for point in points] for name, points in self.curves.items()
        }
        return {"speedup": self.trial.speedup, "psnr_db": self.trial.psnr_db, "curves": curves}


def tune_pipeline(
    pipeline: Any,
    sampling: Sampling,
    target: Target,
    out: Path,
    picture: Path | None = None,
    options: Options | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Find the best plan for the pipeline's denoiser, and write it to ``out``.

    Args:
        pipeline: The diffusers pipeline.
        sampling: The images to sample.
        target: The target.
        out: The file of the plan.
        picture: The file of a plot of quality against speed; None for no plot. The plot also has
            the policies Uniform, NonUniform and TaylorSeer with fixed options, and schedules of
            the tuner for other speed-ups.
        options: Options of the search.
        say: Called with messages about the progress.

    Raises:
        ConfigError: An option is wrong.
        CutError: No schedule reaches the target.
    """
    pipeline.set_progress_bar_config(disable=True)
    model = denoiser_of(pipeline)
    tuner = Tuner(model, lambda: sampled(pipeline, sampling), options, say)
    trial = reached(tuner, target)
    goal = {name: value for name, value in asdict(target).items() if value is not None}
    plan = tuner.plan(trial, {**asdict(sampling), **goal, **asdict(tuner.options)})
    plan.save(out)
    curves: dict[str, list[Point]] = {}
    if picture:
        curves = compared(tuner, trial, sampling.steps)
        title = f"{type(model).__name__}, {sampling.steps} steps, {len(sampling.prompts)} pictures"
        draw_pareto(curves, picture, title, point(trial))
    return Tuned(plan, trial, curves)


def reached(tuner: Tuner, target: Target) -> Trial:
    """Return the best trial for ``target``."""
    if target.speedup is not None:
        return tuner.best(target.speedup)
    if target.psnr_db is not None:
        return tuner.closest(target.psnr_db)
    assert target.budget_ms is not None
    return tuner.within(target.budget_ms)


def compared(tuner: Tuner, chosen: Trial, steps: int) -> dict[str, list[Point]]:
    """The curves of policies with fixed options, and of tuned schedules at equal speed-ups."""
    hand_set: dict[str, list[Policy]] = {
        "Uniform": [Uniform(n) for n in INTERVALS],
        "NonUniform": [NonUniform(n, center=0.3 * steps) for n in INTERVALS],
        "TaylorSeer": [TaylorSeer(n) for n in INTERVALS],
    }
    curves = {}
    for name, policies in hand_set.items():
        curves[name] = [point(tuner.tried(policy, AUTO)) for policy in policies]
    tuned = [point(chosen)]
    for reference in curves["Uniform"]:
        try:
            tuned.append(point(tuner.best(reference.speedup)))
        except CutError:
            continue
    return {"tuned": tuned, **curves}


def point(trial: Trial) -> Point:
    """Return the point of a trial in a plot."""
    return Point(trial.speedup, trial.psnr_db)


def sampled(pipeline: Any, sampling: Sampling) -> Tensor:
    """Return all images, ``[N, H, W, C]`` with values from 0 to 1, not rounded to bytes."""
    tensors: list[Tensor] = []
    for drawing in sampling.drawings():
        images = drawing.draw(pipeline, sampling.steps, output_type="np")
        tensors += map(torch.as_tensor, images)
    return torch.stack(tensors)
