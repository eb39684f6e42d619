"""``fxcache strip``: plot the cache points that each step refreshes and reuses."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxcache.calibration.plan import Plan
from fxcache.commands.options import DRAWINGS, Result, require_positive, require_suffix, writable
from fxcache.errors import ConfigError, ModelFileError
from fxcache.integrations.diffusers import parsed
from fxcache.report.saved import components_of
from fxcache.report.strip import draw_strip, planned, shown


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("file", type=Path, help="a plan, or a report of `run --report FILE`")
    component = "which denoiser, for a report of a pipeline with several"
    command.add_argument("--component", metavar="NAME", help=component)
    command.add_argument(
        "--steps", type=int, default=50, help="steps to plot, for a plan without a number of steps"
    )
    command.add_argument(
        "--out", type=Path, default=Path("strip.png"), help="the image file to write"
    )


def run(arguments: argparse.Namespace) -> Result:
    """Plot the schedule of a plan, or of the last run in a report."""
    writable(require_suffix(arguments.out, "--out", DRAWINGS))
    data = parsed(arguments.file, "a plan, or a report of a run")
    if "fxcache_plan" in data:
        plan = Plan.from_dict(data)
        steps = require_positive(data["settings"].get("steps", arguments.steps), "steps")
        rows, names = planned(plan.policy, steps, plan.cut)
        title = f"{type(plan.policy).__name__}, {steps} steps"
    else:
        policy, run = last_run(data, arguments.file, arguments.component)
        rows, names = shown(run["schedule"], run["steps"])
        title = f"{policy}, {run['steps']} steps"
    draw_strip(rows, names, arguments.out, title)
    computed = {name: [s for s, row in enumerate(rows) if name in row] for name in names}
    return Result({"schedule": computed, "steps": len(rows)}, f"wrote {arguments.out}")


def last_run(
    report: Mapping[str, Any], file: Path, component: str | None
) -> tuple[str, Mapping[str, Any]]:
    """Return the policy and the last run in a report of a module or of a pipeline.

    Raises:
        ConfigError: It is not clear which component is meant.
        ModelFileError: There is no run.
    """
    reports = components_of(report)
    if component is None and len(reports) == 1:
        component = next(iter(reports))
    if component not in reports:
        raise ConfigError(
            "the report has several denoisers" if component is None else f"no {component} in it",
            where=str(file),
            remedy=f"pass --component with one of: {', '.join(reports)}",
        )
    found = reports[component]
    if not found.get("runs"):
        raise ModelFileError(
            "the report has no run", where=str(file), remedy="pass a plan, or a report of a run"
        )
    return found["policy"]["policy"], found["runs"][-1]
