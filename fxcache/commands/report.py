"""``fxcache report``: show a saved report of a model or a pipeline, or a plan."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fxcache.calibration.plan import Plan
from fxcache.calibration.plan_parts import cut_to_json
from fxcache.commands.options import Result
from fxcache.errors import ModelFileError
from fxcache.integrations.diffusers import parsed
from fxcache.report.saved import saved_text

REPORT = "a file written by `fxcache run --report FILE`, or by `fxcache.report(...).save(FILE)`"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("file", type=Path, help=REPORT)


def run(arguments: argparse.Namespace) -> Result:
    """Read the report, and format it."""
    data = parsed(arguments.file, REPORT)
    if "fxcache_plan" in data:
        return Result(data, plan_text(Plan.load(arguments.file), arguments.file))
    try:
        return Result(data, saved_text(data))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"this is not an fxcache report: {error!r} is missing",
            where=str(arguments.file),
            remedy=f"pass {REPORT}",
        ) from error


def plan_text(plan: Plan, file: Path) -> str:
    """Say that the file is a plan, what it holds, and how to use it."""
    lengths = sorted({f"{calls} calls" for _, _, calls in plan.run_lengths})
    cut = cut_to_json(plan.cut)
    rows = [
        ("policy", type(plan.policy).__name__),
        ("forecast", type(plan.forecast).__name__ if plan.forecast else "that of the policy"),
        ("cut", ", ".join(map(str, cut)) if isinstance(cut, list) else cut),
        ("made for", f"{plan.model.model} of {plan.model.parameters:,} parameters"),
        ("runs of", ", ".join(lengths) or "any length"),
        ("made with", ", ".join(f"{name} {number}" for name, number in plan.versions.items())),
    ]
    return (
        f"{file} is a plan, not a report of a run.\n\n{tabulate(rows, tablefmt='plain')}\n\n"
        f"use it: fxcache run PIPELINE --prompt … --plan {file}\n"
        f"draw its schedule: fxcache strip {file}"
    )
