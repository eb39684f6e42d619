"""``fxcache tune``: the best plan for a speed, a likeness or a time."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from fxcache.commands.options import (
    DRAWINGS,
    Result,
    add_pipeline_options,
    add_sampling_options,
    folder_for,
    pipeline_from,
    require_suffix,
    sampling_from,
)
from fxcache.pipelines.tune import Target, tune_pipeline
from fxcache.tuning.options import Options

HELP = {
    "cuts": "how many cuts to try",
    "mixed": "how many of them one plan may use",
    "gaps": "steps over which a value may be reused",
    "order": "the highest order of forecasts",
    "probes": "steps at which it is measured how an error shows in the end",
    "verified": "plans tried by real runs",
}


def add_options(search: argparse.ArgumentParser) -> None:
    add_pipeline_options(search, cut=False)
    add_sampling_options(search)
    search.add_argument("--speedup", type=float, help="at least so many times as fast, from FLOPs")
    search.add_argument("--psnr", type=float, help="at least so many dB from the uncached run")
    search.add_argument("--budget-ms", type=float, help="at most so long in the denoiser a run")
    search.add_argument("--picture", type=Path, help="draw quality against speed here")
    for name, default in asdict(Options()).items():
        search.add_argument(f"--{name}", type=int, default=default, help=HELP[name])


def run(arguments: argparse.Namespace) -> Result:
    sampling = sampling_from(arguments)
    target = Target(arguments.speedup, arguments.psnr, arguments.budget_ms)
    options = Options(**{name: getattr(arguments, name) for name in asdict(Options())})
    out = folder_for(arguments.out)
    if arguments.picture:
        folder_for(require_suffix(arguments.picture, "--picture", DRAWINGS))
    pipeline = pipeline_from(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    tuned = tune_pipeline(pipeline, sampling, target, out, arguments.picture, options, say)
    found = f"{tuned.trial.speedup:.2f} times as fast, from FLOPs, {tuned.trial.psnr_db:.1f} dB"
    return tuned.to_dict(), f"{found}; wrote {out}: fxcache.optimize(model, {str(out)!r})"
