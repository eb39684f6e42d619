"""``fxcache gate``: hold counts and times of an optimised pipeline to expected values."""

import argparse
import os
from pathlib import Path
from typing import Any

from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import Result, pipeline_from, writable
from fxcache.errors import ConfigError
from fxcache.gate.config import TIERS, GateConfig
from fxcache.gate.expected import Expected, expected_file
from fxcache.gate.gate import Outcome, check, update
from fxcache.gate.output.annotations import annotations
from fxcache.gate.output.junit import as_junit
from fxcache.gate.output.page import as_html
from fxcache.gate.output.text import as_text
from fxcache.gate.output.trends import update_lines
from fxcache.gate.subject import Subject
from fxcache.pipelines.drawing import Drawing
from fxcache.runtime.denoisers import denoisers_of

FAILED = 3  # the exit status if a value is not as expected; 1 is that of errors
UPDATE = '--update --reason "why they change"'
PROMPT = "a red apple"  # of pipelines that take texts


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    default = f"{PROMPT!r}, or the first class of the pipeline"
    add_drawing_options(command, default)
    file = "the expected values; {torch}, {python} and {device} stand for versions, and cpu or cuda"
    command.add_argument("--expected", default="expected-torch{torch}.json", help=file)
    case = "the name of the values in the file; by default that of the pipeline"
    command.add_argument("--case", default=argparse.SUPPRESS, help=case)
    tier = "what to measure, by default everything; can be repeated"
    command.add_argument(
        "--tier", choices=TIERS, action="append", default=argparse.SUPPRESS, help=tier
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
    device = arguments.device.partition(":")[0]
    file = expected_file(arguments.expected, device)
    Expected.load(file, device)  # before the pipeline is loaded and measured
    for written in (arguments.html, arguments.junit, file if arguments.update else None):
        if written:
            writable(written)
    config = GateConfig(
        tuple(vars(arguments).get("tier", TIERS)), arguments.rounds, arguments.margin
    )
    pipeline = pipeline_from(arguments)
    pipeline.set_progress_bar_config(disable=True)
    drawing = drawing_of(arguments, pipeline)
    case = vars(arguments).get("case", Path(arguments.pipeline).name)
    with drawing.optimized(pipeline) as target:
        subject = subject_of(drawing, pipeline, target)
        if arguments.update:
            changed = update(subject, case, file, config, arguments.reason)
            lines = (
                f"wrote {file}"
                + (f": {len(changed.changed)} exact values changed" if changed.changed else ""),
                *update_lines(changed),
            )
            return Result({"file": str(file), "changed": dict(changed.changed)}, "\n".join(lines))
        outcome = check(subject, case, file, config)
    write_reports(outcome, arguments)
    text = "\n".join((as_text(outcome, UPDATE), *on_github(outcome)))
    return Result(outcome.to_dict(), text, 0 if outcome.passed else FAILED)


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
    labels = getattr(pipeline, "labels", None)
    arguments.prompt = arguments.prompt or [next(iter(labels)) if labels else PROMPT]
    return drawing_from(arguments)


def subject_of(drawing: Drawing, pipeline: Any, target: Any) -> Subject:
    """Return what to measure: ``target`` is the optimised pipeline, or its first denoiser."""

    def images() -> list[Any]:
        return drawing.draw(pipeline, drawing.steps)

    denoisers = denoisers_of(pipeline)
    settings = {"prompts": list(drawing.prompts), "steps": drawing.steps, "seed": drawing.seed}
    if target is pipeline:
        return Subject(denoisers, images, pipeline, settings)
    return Subject({n: m for n, m in denoisers.items() if m is target}, images, settings=settings)


def write_reports(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Write the reports that the arguments name."""
    for file, shown in ((arguments.html, as_html), (arguments.junit, as_junit)):
        if file:
            file.write_text(shown(outcome), encoding="utf-8")


def on_github(outcome: Outcome) -> list[str]:
    """Return annotations if this is a job of GitHub Actions, and write its summary."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"```text\n{as_text(outcome, UPDATE)}\n```\n")
    return annotations(outcome)
