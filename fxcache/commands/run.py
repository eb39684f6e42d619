"""``fxcache run``: generate images with a pipeline and fxcache."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from fxcache.calibration.plan import Plan
from fxcache.codecs.quantized_rows import LARGEST
from fxcache.commands.options import (
    PICTURES,
    Result,
    add_pipeline_options,
    cut_from,
    folder_for,
    pipeline_from,
    require_positive,
    require_suffix,
)
from fxcache.config import CacheConfig
from fxcache.errors import ConfigError
from fxcache.pipelines.drawing import Drawing, compare
from fxcache.policies import NonUniform, Policy, Uniform
from fxcache.report.compare import Comparison, sheet

CACHE_DTYPES = tuple(str(dtype).removeprefix("torch.") for dtype in LARGEST)
FLAGS = {
    "offload": "move weights that no step reads to the CPU; needs a GPU",
    "partial-evaluation": "move cuts behind linear maps of cached values",
    "kernels": "read the cache with Triton kernels, on CUDA devices",
}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_pipeline_options(command)
    command.add_argument(
        "--prompt",
        action="append",
        required=True,
        help="a prompt, or the name of a class; can be repeated",
    )
    command.add_argument(
        "--plan", type=Path, help="a plan of `calibrate` or `tune`, instead of interval and cut"
    )
    schedule = {
        "--interval": (int, "refresh every Nth step, instead of the default policy"),
        "--center": (float, "concentrate the refreshes around this step instead"),
        "--power": (
            float,
            f"how strongly to concentrate them; needs --center (default: {NonUniform.power})",
        ),
    }
    for option, (kind, purpose) in schedule.items():
        command.add_argument(option, type=kind, default=argparse.SUPPRESS, help=purpose)
    hoist = "which values to compute before the steps"
    command.add_argument(
        "--hoist", choices=("none", "auto", "once", "table"), default="auto", help=hoist
    )
    dtype = "the dtype of stored values"
    command.add_argument("--cache-dtype", choices=CACHE_DTYPES, help=dtype)
    for option, purpose in FLAGS.items():
        command.add_argument(f"--{option}", action="store_true", help=purpose)
    compare_help = "also generate the images without fxcache, and compare"
    command.add_argument("--compare", action="store_true", help=compare_help)
    out = Path("fxcache.png")
    command.add_argument("--out", type=Path, default=out, help="the image file to write")
    command.add_argument("--report", type=Path, help="the file for the report, as JSON")


def run(arguments: argparse.Namespace) -> Result:
    """Generate the images, and write them and the report."""
    drawing = Drawing(
        prompts=arguments.prompt,
        steps=require_positive(arguments.steps, "steps"),
        seed=arguments.seed,
        policy=policy_from(arguments),
        cut=cut_from(arguments.cut),
        plan=Plan.load(arguments.plan) if arguments.plan else None,
        options=options_from(arguments),
    )
    folder_for(require_suffix(arguments.out, "--out", PICTURES))
    if arguments.compare and arguments.report:
        raise ConfigError(
            "--compare writes no report",
            where="--compare --report",
            remedy="leave out one of them; --compare --json prints all measurements",
        )
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


def options_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``fxcache.optimize`` other than the policy and the cut."""
    dtype = arguments.cache_dtype
    flags = {name: getattr(arguments, name) for name in (f.replace("-", "_") for f in FLAGS)}
    cache = CacheConfig(dtype=getattr(torch, dtype) if dtype else None, **flags)
    hoist = None if arguments.hoist == "none" else arguments.hoist
    return {"hoist": hoist, "cache": cache}


def policy_from(arguments: argparse.Namespace) -> Policy | None:
    """Return the policy of the options; None for the default policy, or that of a plan.

    Raises:
        ConfigError: The options exclude each other.
    """
    names = ("interval", "center", "power")
    passed = {name: getattr(arguments, name) for name in names if name in arguments}
    if not passed:
        return None
    if arguments.plan or ("power" in passed and "center" not in passed):
        raise ConfigError(
            "the plan has its schedule" if arguments.plan else "a uniform schedule has no power",
            where=" ".join(f"--{name} {value:g}" for name, value in passed.items()),
            remedy="leave out --plan, or these" if arguments.plan else "pass --center as well",
        )
    return NonUniform(**passed) if "center" in passed else Uniform(**passed)


def comparison_text(compared: Comparison, out: Path) -> str:
    """Return the table of a comparison."""
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
