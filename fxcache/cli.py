"""The command line: ``fxcache inspect | run | report | env``."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from fxcache.api import frontier
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
from fxcache.run import Drawing, compare
from fxcache.schedule import NonUniform, Policy, Uniform

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
DTYPES = ("float32", "float16", "bfloat16")
REPORT = "a file written by `fxcache run --report FILE`"
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
    look.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    look.add_argument("source", help="a config.json, a model's or pipeline's folder, or a hub id")
    look.add_argument("--batch", type=int, default=1, help="how many pictures at a time")
    look.set_defaults(command=inspect)

    draw = commands.add_parser("run", help="draw with a pipeline through fxcache")
    add_run_options(draw)
    draw.set_defaults(command=run)

    show = commands.add_parser("report", help="show a report saved by `run --report FILE`")
    show.add_argument("file", type=Path)
    show.set_defaults(command=show_report)

    environment = commands.add_parser("env", help="versions and device, for bug reports")
    environment.set_defaults(command=env)

    for command in (look, draw, show, environment):
        command.add_argument("--json", action="store_true", help="machine-readable output")
    return top


def add_run_options(draw: argparse.ArgumentParser) -> None:
    draw.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    draw.add_argument("pipeline", help="a diffusers pipeline's folder or a hub id")
    draw.add_argument("--prompt", action="append", required=True, help="may be given repeatedly")
    draw.add_argument("--steps", type=int, default=50, help="of denoising")
    draw.add_argument("--interval", type=int, default=3, help="refresh one step in this many")
    draw.add_argument("--center", type=float, help="crowd refreshes around this step instead")
    draw.add_argument("--power", type=float, default=1.4, help="how densely; with --center")
    draw.add_argument("--cut", default="auto", help="skip index, module path or auto")
    draw.add_argument("--seed", type=int, default=0, help="of the first picture")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw.add_argument("--device", default=device, help="where to draw")
    draw.add_argument("--dtype", default="float32", choices=DTYPES, help="of weights and latents")
    draw.add_argument("--compare", action="store_true", help="draw without fxcache as well")
    draw.add_argument("--out", type=Path, default=Path("fxcache.png"), help="the picture to write")
    draw.add_argument("--report", type=Path, help="save the report here, as JSON")


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
        steps=required_steps(arguments.steps),
        seed=arguments.seed,
        policy=policy_from(arguments),
        cut=cut_from(arguments.cut),
    )
    folder_for(require_picture(arguments.out))
    quiet_transformers()
    dtype = getattr(torch, arguments.dtype)
    pipeline = load_pipeline(arguments.pipeline, dtype, arguments.device)
    if arguments.compare:
        compared = compare(pipeline, drawing, arguments.out)
        return compared.to_dict(), comparison_text(compared, arguments.out)
    images, reported = drawing.cached(pipeline)
    sheet({"fxcache": images}, drawing.prompts).save(arguments.out)
    data = reported.to_dict()
    if arguments.report:
        folder_for(arguments.report).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return data, f"{reported}\n\nwrote {arguments.out}"


def quiet_transformers() -> None:
    """Leave out its advice on optional packages; this process is ours alone."""
    installed("transformers.utils.logging").set_verbosity_error()


def required_steps(steps: int) -> int:
    if steps < 1:
        raise ConfigError(f"steps={steps} is below 1", where="run", remedy="pass --steps 1 or more")
    return steps


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
    data = parsed(arguments.file, REPORT)
    try:
        return data, as_text(data)
    except (KeyError, TypeError) as error:
        raise ModelFileError(
            f"this is no fxcache report: {error!r} is missing",
            where=str(arguments.file),
            remedy=f"pass {REPORT}",
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
