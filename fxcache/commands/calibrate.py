"""``fxcache calibrate``: fit a policy to a pipeline."""

import argparse
import sys

from fxcache.calibration.calibration import MEASUREMENTS
from fxcache.commands.options import (
    Result,
    add_pipeline_options,
    add_sampling_options,
    cut_from,
    folder_for,
    option_from,
    pipeline_from,
    sampling_from,
)
from fxcache.pipelines.calibrate import calibrate_pipeline


def add_options(measure: argparse.ArgumentParser) -> None:
    add_pipeline_options(measure)
    names = {kind.__name__.lower(): kind for kind in MEASUREMENTS}
    measure.add_argument("--policy", required=True, choices=sorted(names))
    add_sampling_options(measure)
    measure.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the policy, such as threshold=0.3; may be given repeatedly",
    )


def run(arguments: argparse.Namespace) -> Result:
    sampling = sampling_from(arguments)
    (kind,) = (k for k in MEASUREMENTS if k.__name__.lower() == arguments.policy)
    options = dict(map(option_from, arguments.option))
    out = folder_for(arguments.out)
    pipeline, cut = pipeline_from(arguments), cut_from(arguments.cut)
    try:
        plan = calibrate_pipeline(pipeline, kind, sampling, out, options, cut)
    except KeyboardInterrupt:
        print("fxcache: the same command goes on after the last whole batch", file=sys.stderr)
        raise
    return plan.to_dict(), f"wrote {out}; use it: fxcache.optimize(model, {str(out)!r})"
