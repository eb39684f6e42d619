"""``fxcache strip``: plot the cache points that each step refreshes and reuses."""

import argparse
from pathlib import Path

from fxcache.calibration.plan import Plan
from fxcache.commands.options import DRAWINGS, Result, require_positive, require_suffix, writable
from fxcache.errors import ModelFileError
from fxcache.integrations.diffusers import parsed
from fxcache.report.strip import draw_strip, planned, shown


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("file", type=Path, help="a plan, or a report of `run --report FILE`")
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
        runs = data.get("runs") or []
        if not runs:
            raise ModelFileError(
                "the report has no run",
                where=str(arguments.file),
                remedy="pass a plan, or a report of a run",
            )
        rows, names = shown(runs[-1]["schedule"], runs[-1]["steps"])
        title = f"{data['policy']['policy']}, {runs[-1]['steps']} steps"
    draw_strip(rows, names, arguments.out, title)
    computed = {name: [s for s, row in enumerate(rows) if name in row] for name in names}
    return Result({"schedule": computed, "steps": len(rows)}, f"wrote {arguments.out}")
