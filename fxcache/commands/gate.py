"""``fxcache gate``: hold counts and times of an optimised pipeline to expected values."""

import argparse
import os
from pathlib import Path
from typing import Any

from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import Result, folder_for, pipeline_from
from fxcache.errors import ConfigError
from fxcache.gate.config import TIERS, GateConfig
from fxcache.gate.expected import expected_file
from fxcache.gate.gate import Outcome, check, update
from fxcache.gate.output.annotations import annotations
from fxcache.gate.output.junit import as_junit
from fxcache.gate.output.page import as_html
from fxcache.gate.output.text import as_text
from fxcache.gate.subject import Subject
from fxcache.pipelines.drawing import Drawing
from fxcache.runtime.denoisers import denoisers_of

PROMPT = "a red apple"  # of pipelines that take texts


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    default = f"{PROMPT!r}, or the first class"
    add_drawing_options(command, default)
    file = "the expected values; {torch} and {device} are its version, and cpu or cuda"
    command.add_argument("--expected", default="expected-torch{torch}.json", help=file)
    command.add_argument("--case", help="the values in the file (default: the pipeline)")
    command.add_argument(
        "--tier", choices=TIERS, action="append", help="what to measure (default: all)"
    )
    rounds = "pairs of runs for the times"
    command.add_argument("--rounds", type=int, default=GateConfig.rounds, help=rounds)
    margin = "by which share a ratio of times may be above its expected value"
    command.add_argument("--margin", type=float, default=GateConfig.margin, help=margin)
    command.add_argument("--update", action="store_true", help="write what is measured")
    command.add_argument("--reason", help="why the values change; needed for --update")
    command.add_argument("--html", type=Path, help="the file for a report as a page")
    command.add_argument("--junit", type=Path, help="the file for a report as JUnit XML")


def run(arguments: argparse.Namespace) -> Result:
    """Measure the pipeline, and compare the values or write them."""
    require_reason(arguments)
    config = GateConfig(tuple(arguments.tier or TIERS), arguments.rounds, arguments.margin)
    pipeline = pipeline_from(arguments)
    pipeline.set_progress_bar_config(disable=True)
    drawing = drawing_of(arguments, pipeline)
    file = expected_file(arguments.expected, arguments.device.partition(":")[0])
    case = arguments.case or Path(arguments.pipeline).name
    with drawing.optimized(pipeline) as target:
        subject = subject_of(drawing, pipeline, target)
        if arguments.update:
            measured = update(subject, case, file, config, arguments.reason)
            return Result(measured.to_dict(), f"wrote {file}")
        outcome = check(subject, case, file, config)
    write_reports(outcome, arguments)
    text = "\n".join((as_text(outcome), *on_github(outcome)))
    return Result(outcome.to_dict(), text, int(not outcome.passed))


def require_reason(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for an update without a reason, or a reason without an update."""
    if arguments.update == bool(arguments.reason and arguments.reason.strip()):
        return
    what = "an update needs a reason" if arguments.update else "a reason belongs to an update"
    raise ConfigError(
        what,
        where="fxcache gate",
        remedy='pass both: --update --reason "why the values change"',
    )


def drawing_of(arguments: argparse.Namespace, pipeline: Any) -> Drawing:
    """Return the images to generate. Without a prompt, those of the default prompt."""
    given = arguments.prompt
    labels = getattr(pipeline, "labels", None)
    arguments.prompt = given or [next(iter(labels)) if labels else PROMPT]
    return drawing_from(arguments)


def subject_of(drawing: Drawing, pipeline: Any, target: Any) -> Subject:
    """Return what to measure: ``target`` is the optimised pipeline, or its first denoiser."""

    def images() -> list[Any]:
        return drawing.draw(pipeline, drawing.steps)

    denoisers = denoisers_of(pipeline)
    if target is pipeline:
        return Subject(denoisers, images, pipeline)
    return Subject({n: m for n, m in denoisers.items() if m is target}, images)


def write_reports(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Write the reports that the arguments name."""
    for file, shown in ((arguments.html, as_html), (arguments.junit, as_junit)):
        if file:
            folder_for(file).write_text(shown(outcome), encoding="utf-8")


def on_github(outcome: Outcome) -> list[str]:
    """Return annotations if this is a job of GitHub Actions."""
    return annotations(outcome) if os.environ.get("GITHUB_ACTIONS") == "true" else []
