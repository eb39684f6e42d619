"""``fxcache tune``: find the best plan for a speed-up, a PSNR or a time."""

import argparse
from dataclasses import asdict
from pathlib import Path

from fxcache.commands.options import (
    DRAWINGS,
    Result,
    add_pipeline_options,
    add_sampling_options,
    pipeline_from,
    require_suffix,
    sampling_from,
    say,
    writable,
)
from fxcache.pipelines.tune import Target, tune_pipeline
from fxcache.tuning.candidates import require_reachable
from fxcache.tuning.options import Options

HELP = {
    "cuts": "the number of cuts to try",
    "mixed": "the number of cuts that one plan may combine",
    "gaps": "the number of steps over which a value may be reused",
    "order": "the highest order of forecasts, at most 4",
    "probes": "the number of steps at which to measure the effect of an error on the result",
    "verified": "the number of plans to verify by real runs",
}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_pipeline_options(command, cut=False)
    add_sampling_options(command)
    command.add_argument("--speedup", type=float, help="the least speed-up, from FLOPs")
    command.add_argument("--psnr", type=float, help="the least PSNR in dB against the uncached run")
    command.add_argument("--budget-ms", type=float, help="the greatest denoiser time of a run")
    command.add_argument("--picture", type=Path, help="the file for a plot of quality and speed")
    for name, default in asdict(Options()).items():
        command.add_argument(f"--{name}", type=int, default=default, help=HELP[name])


def run(arguments: argparse.Namespace) -> Result:
    """Tune, and write the plan."""
    sampling = sampling_from(arguments)
    target = Target(arguments.speedup, arguments.psnr, arguments.budget_ms)
    options = Options(**{name: getattr(arguments, name) for name in asdict(Options())})
    require_reachable(target.speedup, 0.0, options.gaps)
    out = writable(arguments.out)
    if arguments.picture:
        writable(require_suffix(arguments.picture, "--picture", DRAWINGS))
    pipeline = pipeline_from(arguments)

    try:
        tuned = tune_pipeline(pipeline, sampling, target, out, arguments.picture, options, say)
    except KeyboardInterrupt:
        say("fxcache: run the same command to continue after the last run")
        raise
    result = f"{tuned.trial.speedup:.2f} times as fast, from FLOPs, {tuned.trial.psnr_db:.1f} dB"
    return Result(tuned.to_dict(), f"{result}; wrote {out}: fxcache.optimize(model, {str(out)!r})")
