"""Calibrate a diffusers pipeline from prompts: batch by batch, to be continued after a break."""

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
from fxcache.calibration.plan import Plan, cut_to_json
from fxcache.errors import ConfigError, ModelFileError
from fxcache.integrations.diffusers import denoiser_of, installed
from fxcache.partition.choose import AUTO, CutRequest
from fxcache.pipelines.drawing import Drawing
from fxcache.policies import Policy


@dataclass(frozen=True)
class Sampling:
    """What to sample: one picture a prompt, picture i from seed + i, ``batch`` at a time."""

    prompts: Sequence[str]
    steps: int = 50
    seed: int = 0
    batch: int = 4

    def drawings(self) -> Iterator[Drawing]:
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
    """The plan for the pipeline's denoiser, also written to ``out``.

    Stopped half-way, the next call with the same settings goes on after the last batch that was
    finished: what was measured is kept beside ``out``, its name ending in ``.partial``.

    Raises ConfigError where a file that ends so belongs to other settings, and as ``calibrate``.
    """
    model = denoiser_of(pipeline)
    measurement = measurement_for(kind)
    require_options(kind, options)
    found = fingerprint(model)
    settings = {**asdict(sampling), "policy": kind.__name__, "cut": cut_to_json(cut)}
    progress = Progress(
        out.with_name(f"{out.name}.partial"), {**settings, "model": found.to_dict()}
    )
    done = progress.resume()
    if done:
        measurement.load(progress.measured)
    drawings = list(sampling.drawings())
    if done < len(drawings):
        pipeline.set_progress_bar_config(disable=True)
        with recording(model, measurement, cut):
            bar = installed("tqdm").trange(
                done, len(drawings), initial=done, total=len(drawings), desc="calibrating"
            )
            for index in bar:
                drawings[index].draw(pipeline, sampling.steps)
                progress.save(index + 1, measurement.to_dict())
    plan = Plan(calibrated(measurement, options), cut, found, settings)
    plan.save(out)
    progress.file.unlink(missing_ok=True)
    return plan


class Progress:
    """What was measured so far, in a file that a reader never sees half of."""

    def __init__(self, file: Path, settings: Mapping[str, Any]):
        self.file, self.settings = file, json.loads(json.dumps(settings))
        self.measured: dict[str, Any] = {}

    def resume(self) -> int:
        """How many batches were done before; ``measured`` is what they showed."""
        if not self.file.exists():
            return 0
        try:
            state = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"the unfinished calibration cannot be read: {error}",
                where=str(self.file),
                remedy="remove the file to begin anew",
            ) from error
        if state["settings"] != self.settings:
            differing = sorted(k for k, v in self.settings.items() if state["settings"].get(k) != v)
            raise ConfigError(
                f"an unfinished calibration with other settings is there: {', '.join(differing)}",
                where=str(self.file),
                remedy="finish it with its own settings, or remove the file to begin anew",
            )
        self.measured = state["measured"]
        return int(state["done"])

    def save(self, done: int, measured: Mapping[str, Any]) -> None:
        state = {"settings": self.settings, "done": done, "measured": measured}
        unfinished = self.file.with_name(f"{self.file.name}.new")
        unfinished.write_text(json.dumps(state), encoding="utf-8")
        os.replace(unfinished, self.file)
