"""Calibrates a diffusers pipeline from prompts, in batches. An interrupted run can continue."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fxcache.calibration.calibration import (
    calibrated,
    measurement_for,
    recording,
    require_options,
)
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.measurement import Measurement
from fxcache.calibration.plan import Plan
from fxcache.calibration.plan_parts import cut_to_json
from fxcache.errors import ConfigError, ModelFileError
from fxcache.integrations.diffusers import denoiser_of, installed
from fxcache.partition.request import AUTO, CutRequest
from fxcache.pipelines.drawing import Drawing
from fxcache.policies import Policy


@dataclass(frozen=True)
class Sampling:
    """The images to sample: one for each prompt.

    Args:
        prompts: The prompts or class names.
        steps: The number of denoising steps.
        seed: The seed of the first image. Image i has the seed ``seed + i``.
        batch: The number of images in a batch.
    """

    prompts: Sequence[str]
    steps: int = 50
    seed: int = 0
    batch: int = 4

    def drawings(self) -> Iterator[Drawing]:
        """One drawing for each batch."""
        for start in range(0, len(self.prompts), self.batch):
            prompts = self.prompts[start : start + self.batch]
            yield Drawing(prompts, self.steps, self.seed + start)


def calibrate_pipeline(
    pipeline: Any,
    kind: type[Policy],
    sampling: Sampling,
    out: Path,
    options: Mapping[str, Any],
    cut: CutRequest = AUTO,
) -> Plan:
    """Calibrate a policy for the pipeline's denoiser, and write the plan to ``out``.

    The progress is saved after each batch, in a file beside ``out`` with the suffix ``.partial``.
    After an interruption, the next call with the same settings continues from it.

    Args:
        pipeline: The diffusers pipeline.
        kind: The kind of policy.
        sampling: The images to sample.
        out: The file of the plan.
        options: The options of the policy that are not measured.
        cut: The values to observe.

    Raises:
        ConfigError: The saved progress belongs to other settings, or an option is unknown.
        ModelFileError: A file cannot be read or written.
        ScheduleError: There was no run of more than one step.
    """
    measurement = measurement_for(kind)
    require_options(kind, options)
    model_fingerprint = fingerprint(denoiser_of(pipeline))
    settings = {**asdict(sampling), "policy": kind.__name__, "cut": cut_to_json(cut)}
    progress = Progress(
        out.with_name(f"{out.name}.partial"), {**settings, "model": model_fingerprint.to_dict()}
    )
    measure(pipeline, measurement, sampling, cut, progress)
    plan = Plan(calibrated(measurement, options), cut, model_fingerprint, settings)
    plan.save(out)
    progress.file.unlink(missing_ok=True)
    return plan


def measure(
    pipeline: Any,
    measurement: Measurement,
    sampling: Sampling,
    cut: CutRequest,
    progress: "Progress",
) -> None:
    """Sample the batches that are left, and save the progress after each."""
    done = progress.resume()
    if done:
        measurement.load(progress.measured)
    drawings = list(sampling.drawings())
    if done == len(drawings):
        return
    pipeline.set_progress_bar_config(disable=True)
    with recording(denoiser_of(pipeline), measurement, cut):
        bar = installed("tqdm").trange(
            done, len(drawings), initial=done, total=len(drawings), desc="calibrating"
        )
        for index in bar:
            drawings[index].draw(pipeline, sampling.steps)
            progress.save(index + 1, measurement.to_dict())


class Progress:
    """The progress of a calibration or a tuner, in a file that is written atomically.

    Attributes:
        file: The file.
        settings: The settings, which a saved progress must share.
        measured: The saved state; empty before ``resume``.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]):
        self.file, self.settings = file, json.loads(json.dumps(settings))
        self.measured: dict[str, Any] = {}

    def resume(self) -> int:
        """Load the file, and return the number of batches that it covers."""
        if not self.file.exists():
            return 0
        try:
            state = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"the unfinished work cannot be read: {error}",
                where=str(self.file),
                remedy="remove the file to start again",
            ) from error
        if state["settings"] != self.settings:
            differing = sorted(k for k, v in self.settings.items() if state["settings"].get(k) != v)
            raise ConfigError(
                f"unfinished work has other settings: {', '.join(differing)}",
                where=str(self.file),
                remedy="finish it with its own settings, or remove the file to start again",
            )
        self.measured = state["measured"]
        return int(state["done"])

    def save(self, done: int, measured: Mapping[str, Any]) -> None:
        """Write the state after ``done`` batches."""
        state = {"settings": self.settings, "done": done, "measured": measured}
        unfinished = self.file.with_name(f"{self.file.name}.new")
        unfinished.write_text(json.dumps(state), encoding="utf-8")
        os.replace(unfinished, self.file)
