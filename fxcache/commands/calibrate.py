"""``fxcache calibrate``: calibrate a policy for a pipeline."""

import argparse
import sys

from fxcache.calibration.calibration import MEASUREMENTS
from fxcache.commands.options import (
    Result,
    add_pipeline_options,
    add_sampling_options,
    cut_from,
    option_from,
    pipeline_from,
    sampling_from,
    writable,
)
from fxcache.pipelines.calibrate import calibrate_pipeline


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_pipeline_options(command)
    names = {kind.__name__.lower(): kind for kind in MEASUREMENTS}
    command.add_argument("--policy", required=True, choices=sorted(names))
    add_sampling_options(command)
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the policy, such as threshold=0.3; can be repeated",
    )


def run(arguments: argparse.Namespace) -> Result:
    """Calibrate, and write the plan."""
    sampling = sampling_from(arguments)
    (kind,) = (k for k in MEASUREMENTS if k.__name__.lower() == arguments.policy)
    options = dict(map(option_from, arguments.option))
    out = writable(arguments.out)
    pipeline, cut = pipeline_from(arguments), cut_from(arguments.cut)
    try:
        plan = calibrate_pipeline(pipeline, kind, sampling, out, options, cut)
    except KeyboardInterrupt:
        print("fxcache: run the same command to continue after the last batch", file=sys.stderr)
        raise
    return Result(plan.to_dict(), f"wrote {out}; use it: fxcache.optimize(model, {str(out)!r})")
