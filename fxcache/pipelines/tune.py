"""Tunes a diffusers pipeline from prompts, and compares the best plan with others."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.checks import is_number
from fxcache.errors import ConfigError, CutError
from fxcache.integrations.diffusers import denoiser_of
from fxcache.partition.request import AUTO
from fxcache.pipelines.calibrate import Progress, Sampling
from fxcache.policies import NonUniform, Policy, TaylorSeer, Uniform
from fxcache.report.pareto import Point, draw_pareto
from fxcache.tuning.baseline import Goal
from fxcache.tuning.memory import Memory
from fxcache.tuning.options import Options
from fxcache.tuning.trial import Trial, as_tensor, psnr_db
from fxcache.tuning.tune import Tuner

INTERVALS = (2, 3, 4, 5, 6)
OPTIONS = {"speedup": "speedup", "psnr_db": "psnr", "budget_ms": "budget-ms"}
MOST_PSNR_DB = 200  # one value in 400,000 differs by the rounding of a number near 1


@dataclass(frozen=True)
class Target:
    """The target of the tuner. Exactly one field is set.

    Args:
        speedup: The least speed-up of the denoiser, from FLOPs.
        psnr_db: The least PSNR in dB against the uncached run.
        budget_ms: The greatest time of all denoiser calls in a run, in milliseconds.

    Raises:
        ConfigError: Not exactly one field is set, or no schedule of any model reaches it.
    """

    speedup: float | None = None
    psnr_db: float | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        targets = {name: value for name, value in vars(self).items() if value is not None}
        if len(targets) != 1:
            raise ConfigError(
                f"the target is {targets or 'missing'}",
                where="tune",
                remedy="pass exactly one of speedup, psnr and budget-ms",
            )
        for field_name, value in targets.items():
            name = OPTIONS[field_name]
            if not is_number(value) or value <= 0:
                raise ConfigError(
                    f"{name}={value!r} is not a number above 0",
                    where="tune",
                    remedy=f"pass {name} as a finite number above 0",
                )
        if self.speedup is not None and self.speedup <= 1:
            raise ConfigError(
                f"speedup={self.speedup!r} saves nothing", where="tune", remedy="pass more than 1"
            )
        if self.psnr_db is not None and self.psnr_db > MOST_PSNR_DB:
            raise ConfigError(
                f"psnr={self.psnr_db:g} is more than pictures can have that are not equal: "
                f"{MOST_PSNR_DB} dB, in float32",
                where="tune",
                remedy=f"pass at most {MOST_PSNR_DB}; 30 to 50 is common",
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

    What is measured is saved in a file beside ``out``. Its suffix is ``.partial``, after a digest
    of the model, the images and the options. After an interruption, the next call with the same
    ones takes it over.

    Args:
        pipeline: The diffusers pipeline.
        sampling: The images to sample.
        target: The target.
        out: The file of the plan.
        picture: The file of a plot of quality against speed; None for no plot. The plot also has
            the policies Uniform, NonUniform and TaylorSeer with fixed options, fewer steps without
            caching, and schedules of the tuner for other speed-ups.
        options: Options of the search.
        say: Called with messages about the progress.

    Raises:
        ConfigError: An option is wrong.
        CutError: No schedule reaches the target.
    """
    pipeline.set_progress_bar_config(disable=True)
    model, options = denoiser_of(pipeline), options or Options()
    progress, memory = resumed(model, sampling, options, out, say)
    sample = partial(sampled, pipeline, sampling)
    goal = Goal(target.speedup, target.budget_ms)
    tuner = Tuner(model, sample, options, say, memory, goal)
    trial = reached(tuner, target)
    told = {name: value for name, value in asdict(target).items() if value is not None}
    plan = tuner.plan(trial, {**asdict(sampling), **told, **asdict(tuner.options)})
    plan.save(out)
    curves = drawn(pipeline, sampling, tuner, trial, picture) if picture else {}
    progress.file.unlink(missing_ok=True)
    return Tuned(plan, trial, curves)


def drawn(
    pipeline: Any, sampling: Sampling, tuner: Tuner, chosen: Trial, picture: Path
) -> dict[str, list[Point]]:
    """Draw the chosen trial beside others, and return the curves."""
    curves = compared(tuner, chosen, sampling.steps)
    curves["fewer steps"] = fewer_steps(pipeline, sampling, tuner, curves)
    name, pictures = type(tuner.model).__name__, len(sampling.prompts)
    title = f"{name}, {sampling.steps} steps, {pictures} pictures"
    draw_pareto(curves, picture, title, point(chosen))
    return curves


def resumed(
    model: nn.Module, sampling: Sampling, options: Options, out: Path, say: Callable[[str], None]
) -> tuple[Progress, Memory]:
    """Return the file of the progress, and what it holds already."""
    dtype = str(next(model.parameters()).dtype)
    settings = {**asdict(sampling), **asdict(options), "dtype": dtype, "command": "tune"}
    found = settings | {"model": fingerprint(model).to_dict()}
    key = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
    progress, memory = Progress(out.with_name(f"{out.name}.{key}.partial"), found), Memory()
    if done := progress.resume():
        memory.load(progress.measured)
        say(f"continuing after {done} measurements, from {progress.file}")
    memory.save = lambda state: progress.save(1 + len(state["trials"]), state)
    return progress, memory


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
    tuner.messages.begin("picture: run", sum(map(len, hand_set.values())))
    for name, policies in hand_set.items():
        curves[name] = [point(tuner.tried(policy, AUTO)) for policy in policies]
    tuned = [point(chosen)]
    for index, reference in enumerate(curves["Uniform"]):
        of = f"{index + 1} of {len(INTERVALS)}"
        tuner.messages.say(f"picture: tuning {of}, {reference.speedup:.2f} times as fast")
        try:
            tuned.append(point(tuner.best(reference.speedup)))
        except CutError:
            continue
    return {"tuned": tuned, **curves}


def fewer_steps(
    pipeline: Any, sampling: Sampling, tuner: Tuner, curves: Mapping[str, Sequence[Point]]
) -> list[Point]:
    """The curve of fewer steps without caching, at about the speed-ups of Uniform and the tuner."""
    near = (*curves["Uniform"], *curves["tuned"])
    numbers = {max(1, round(sampling.steps / found.speedup)) for found in near}
    tuner.messages.begin("picture: fewer steps", len(numbers))
    points = []
    for steps in sorted(numbers):
        images = as_tensor(sampled(pipeline, replace(sampling, steps=steps)))
        found = Point(sampling.steps / steps, psnr_db(images, tuner.original))
        points.append(found)
        tuner.messages.done(f"{steps} steps: {found.speedup:.2f}×, {found.psnr_db:.2f} dB")
    return points


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
