"""The command line: ``fxcache inspect | run | calibrate | tune | strip | report | env``."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from fxcache.api import frontier
from fxcache.calibrate import Sampling, calibrate_pipeline
from fxcache.calibration.calibration import MEASUREMENTS
from fxcache.calibration.plan import Plan
from fxcache.errors import ConfigError, FxcacheError, ModelFileError
from fxcache.integrations.diffusers import (
    example_inputs,
    installed,
    load_empty,
    load_pipeline,
    parsed,
)
from fxcache.partition.choose import CutRequest
from fxcache.report.compare import Comparison, sheet
from fxcache.report.report import as_text
from fxcache.report.strip import draw_strip, planned, shown
from fxcache.run import Drawing, compare
from fxcache.schedule import NonUniform, Policy, Uniform
from fxcache.tune import Target, tune_pipeline
from fxcache.tuning.tune import Options

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PACKAGES = ("fxcache", "torch", "triton", "diffusers", "transformers", "numpy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after an error of fxcache's own."""
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], tuple[dict[str, Any], str]] = arguments.command
    try:
        data, text = command(arguments)
    except FxcacheError as error:
        print(f"fxcache: {error}", file=sys.stderr)
        return 1
    print(json.dumps(data, indent=2) if arguments.json else text)
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fxcache", description="Cache deep values between steps.")
    top.add_argument("--version", action="version", version=version("fxcache"))
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    look = commands.add_parser("inspect", help="where a model can be cut, and what that saves")
    look.add_argument("source", help="a config.json, a model's or pipeline's folder, or a hub id")
    look.add_argument("--batch", type=int, default=1)
    look.set_defaults(command=inspect)

    draw = commands.add_parser("run", help="draw with a pipeline through fxcache")
    add_run_options(draw)
    draw.set_defaults(command=run)

    measure = commands.add_parser("calibrate", help="fit a policy to a pipeline; writes a plan")
    add_calibrate_options(measure)
    measure.set_defaults(command=calibrate)

    search = commands.add_parser("tune", help="find the best plan for a speed or a quality")
    add_tune_options(search)
    search.set_defaults(command=tune)

    picture = commands.add_parser("strip", help="draw what each step refreshes and reuses")
    picture.add_argument("file", type=Path, help="a plan, or a report of `run --report FILE`")
    picture.add_argument("--steps", type=int, default=50, help="of a plan for any number of steps")
    picture.add_argument("--out", type=Path, default=Path("strip.png"))
    picture.set_defaults(command=strip)

    show = commands.add_parser("report", help="show a report saved by `run --report FILE`")
    show.add_argument("file", type=Path)
    show.set_defaults(command=show_report)

    environment = commands.add_parser("env", help="versions and device, for bug reports")
    environment.set_defaults(command=env)

    for command in (look, draw, measure, search, picture, show, environment):
        command.add_argument("--json", action="store_true", help="machine-readable output")
    return top


def add_run_options(draw: argparse.ArgumentParser) -> None:
    add_pipeline_options(draw)
    draw.add_argument(
        "--prompt",
        action="append",
        required=True,
        help="a prompt, or the name of a class; may be given repeatedly",
    )
    draw.add_argument("--plan", type=Path, help="of `calibrate`; instead of interval and cut")
    draw.add_argument("--interval", type=int, default=3, help="refresh one step in this many")
    draw.add_argument("--center", type=float, help="crowd refreshes around this step instead")
    draw.add_argument("--power", type=float, default=1.4, help="how densely; with --center")
    draw.add_argument("--compare", action="store_true", help="draw without fxcache as well")
    draw.add_argument("--out", type=Path, default=Path("fxcache.png"), help="the PNG to write")
    draw.add_argument("--report", type=Path, help="save the report here, as JSON")


def add_pipeline_options(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    command.add_argument("pipeline", help="a diffusers pipeline's folder or a hub id")
    command.add_argument("--steps", type=int, default=50)
    command.add_argument("--cut", default="auto", help="skip index, module path or auto")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    command.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])


def add_calibrate_options(measure: argparse.ArgumentParser) -> None:
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


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompts", type=Path, required=True, help="a text file, one a line")
    command.add_argument("--batch", type=int, default=4, help="prompts at a time")
    command.add_argument("--out", type=Path, default=Path("plan.json"), help="the plan to write")


def add_tune_options(search: argparse.ArgumentParser) -> None:
    add_pipeline_options(search)
    add_sampling_options(search)
    search.add_argument("--speedup", type=float, help="at least so many times as fast, from FLOPs")
    search.add_argument("--psnr", type=float, help="at least so many dB from the uncached run")
    search.add_argument("--budget-ms", type=float, help="at most so long in the denoiser a run")
    search.add_argument("--picture", type=Path, help="draw quality against speed here")
    for name, default in asdict(Options()).items():
        search.add_argument(
            f"--{name}", type=int, default=default, help=f"see tuning.Options.{name}"
        )


def inspect(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if arguments.batch < 1:
        raise ConfigError(
            f"batch={arguments.batch} is below 1", where="inspect", remedy="pass --batch 1 or more"
        )
    model = load_empty(arguments.source)
    cuts = frontier(model, **example_inputs(model, arguments.batch))
    rows = [
        {
            "skip": cut.skip_index,
            "cut": cut.name,
            "full GFLOPs": cut.full_flops / 1e9,
            "reuse GFLOPs": cut.reuse_flops / 1e9,
            "saved": f"{cut.share_saved:.1%}",
            "cached bytes": f"{cut.cache_bytes:,}",
        }
        for cut in cuts
    ]
    name = type(model).__name__
    data = {"model": name, "batch": arguments.batch, "cuts": [c.to_dict() for c in cuts]}
    if not cuts:
        return data, f"{name} has nothing to cut: neither skip connections nor streams of blocks"
    table = tabulate(rows, headers="keys", floatfmt=".2f")
    return data, f"{name}, batch {arguments.batch}\n\n{table}"


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    drawing = Drawing(
        prompts=arguments.prompt,
        steps=require_positive(arguments.steps, "steps"),
        seed=arguments.seed,
        policy=None if arguments.plan else policy_from(arguments),
        cut=cut_from(arguments.cut),
        plan=Plan.load(arguments.plan) if arguments.plan else None,
    )
    folder_for(require_picture(arguments.out))
    pipeline = pipeline_from(arguments)
    if arguments.compare:
        compared = compare(pipeline, drawing, arguments.out)
        return compared.to_dict(), comparison_text(compared, arguments.out)
    images, reported = drawing.cached(pipeline)
    sheet({"fxcache": images}, drawing.prompts).save(arguments.out)
    data = reported.to_dict()
    if arguments.report:
        folder_for(arguments.report).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return data, f"{reported}\n\nwrote {arguments.out}"


def calibrate(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    sampling = sampling_from(arguments)
    (kind,) = (k for k in MEASUREMENTS if k.__name__.lower() == arguments.policy)
    options = dict(map(option_from, arguments.option))
    out = folder_for(arguments.out)
    plan = calibrate_pipeline(
        pipeline_from(arguments), kind, sampling, out, options, cut_from(arguments.cut)
    )
    return plan.to_dict(), f"wrote {out}; use it: fxcache.optimize(model, plan={str(out)!r})"


def tune(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    sampling = sampling_from(arguments)
    target = Target(arguments.speedup, arguments.psnr, arguments.budget_ms)
    options = Options(**{name: getattr(arguments, name) for name in asdict(Options())})
    out = folder_for(arguments.out)
    pipeline = pipeline_from(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    tuned = tune_pipeline(pipeline, sampling, target, out, arguments.picture, options, say)
    found = f"{tuned.trial.speedup:.2f} times as fast, from FLOPs, {tuned.trial.psnr_db:.1f} dB"
    return tuned.to_dict(), f"{found}; wrote {out}: fxcache.optimize(model, plan={str(out)!r})"


def strip(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    data = parsed(arguments.file)
    if "fxcache_plan" in data:
        policy = Plan.from_dict(data).policy
        steps = data["settings"].get("steps", arguments.steps)
        rows, names = planned(policy, steps)
        title = f"{type(policy).__name__}, {steps} steps"
    else:
        runs = data.get("runs") or []
        if not runs:
            raise ModelFileError(
                "there is no run in it",
                where=str(arguments.file),
                remedy="pass a plan, or a report of a run",
            )
        rows, names = shown(runs[-1]["schedule"], runs[-1]["steps"])
        title = f"{data['policy']['policy']}, {runs[-1]['steps']} steps"
    draw_strip(rows, names, arguments.out, title)
    computed = {name: [s for s, row in enumerate(rows) if name in row] for name in names}
    return {"schedule": computed, "steps": len(rows)}, f"wrote {arguments.out}"


def sampling_from(arguments: argparse.Namespace) -> Sampling:
    return Sampling(
        prompts_in(arguments.prompts),
        require_positive(arguments.steps, "steps"),
        arguments.seed,
        require_positive(arguments.batch, "batch"),
    )


def pipeline_from(arguments: argparse.Namespace) -> Any:
    """The pipeline that the arguments name; transformers' advice is left out, we are on our own."""
    installed("transformers.utils.logging").set_verbosity_error()
    return load_pipeline(arguments.pipeline, getattr(torch, arguments.dtype), arguments.device)


def prompts_in(file: Path) -> list[str]:
    """The lines of a text file, empty ones left out; ModelFileError where there are none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"the prompts cannot be read: {error}", where=str(file), remedy="pass a text file"
        ) from error
    if not any(lines):
        raise ModelFileError(
            "there are no prompts in it", where=str(file), remedy="write one prompt a line"
        )
    return [line for line in lines if line]


def option_from(text: str) -> tuple[str, Any]:
    """``threshold=0.3`` as name and value; ConfigError where it is none."""
    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise ConfigError(
            f"{text!r} does not give an option a number" if equals else f"{text!r} has no =",
            where="--option",
            remedy="write it as NAME=VALUE, for example threshold=0.3",
        ) from None


def require_positive(number: int, name: str) -> int:
    if number < 1:
        raise ConfigError(
            f"{name}={number} is below 1", where=f"--{name}", remedy=f"pass --{name} 1 or more"
        )
    return number


def policy_from(arguments: argparse.Namespace) -> Policy:
    if arguments.center is None:
        return Uniform(interval=arguments.interval)
    return NonUniform(interval=arguments.interval, center=arguments.center, power=arguments.power)


def cut_from(text: str) -> CutRequest:
    return int(text) if text.lstrip("-").isdigit() else text


def folder_for(file: Path) -> Path:
    """``file``, its folder made; ModelFileError where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"cannot write there: {error}", where=str(file), remedy="choose another place"
        ) from error
    return file


def require_picture(file: Path) -> Path:
    """``file`` if its name says a kind of picture; ConfigError before anything is drawn."""
    if file.suffix.lower() not in PICTURES:
        raise ConfigError(
            f"{file.name} does not say what kind of picture to write",
            where=f"--out {file}",
            remedy=f"end the name in one of: {', '.join(PICTURES)}",
        )
    return file


def comparison_text(compared: Comparison, out: Path) -> str:
    rows = [
        ("steps, of them refreshed", f"{compared.steps}, {compared.refreshes}"),
        ("original step", f"{compared.original_ms:.2f} ms"),
        ("refresh step", f"{compared.refresh_ms:.2f} ms"),
        ("reuse step", "–" if compared.reuse_ms is None else f"{compared.reuse_ms:.2f} ms"),
        ("denoiser speed-up", f"{compared.speedup:.2f}×"),
        ("ideal speed-up, from FLOPs", f"{compared.ideal_speedup:.2f}×"),
        ("FLOPs a reuse step saves", f"{compared.share_saved:.1%}"),
        ("cached", f"{compared.cached_bytes:,} bytes"),
        ("PSNR against the original", f"{compared.psnr_db:.2f} dB"),
        ("SSIM against the original", f"{compared.ssim:.4f}"),
    ]
    return f"{tabulate(rows, tablefmt='plain')}\n\nwrote {out}"


def show_report(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    data = parsed(arguments.file)
    try:
        return data, as_text(data)
    except (KeyError, TypeError) as error:
        raise ModelFileError(
            f"this is no fxcache report: {error!r} is missing",
            where=str(arguments.file),
            remedy="pass a file written by `fxcache run --report FILE`",
        ) from error


def env(_: argparse.Namespace) -> tuple[dict[str, Any], str]:
    data: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            data[package] = version(package)
        except PackageNotFoundError:
            data[package] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    data |= {"cuda": torch.version.cuda, "gpu": gpu, "threads": torch.get_num_threads()}
    return data, tabulate([(k, v or "–") for k, v in data.items()], tablefmt="plain")


if __name__ == "__main__":
    sys.exit(main())
