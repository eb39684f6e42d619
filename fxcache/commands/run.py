"""``fxcache run``: draw with a pipeline, through fxcache."""

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

INTERVAL = 3
CACHE_DTYPES = tuple(str(dtype).removeprefix("torch.") for dtype in LARGEST)
FLAGS = {
    "offload": "keep weights that no step reads on the CPU; with --hoist, on other devices",
    "partial-evaluation": "compute at the refresh what cached values alone decide",
    "kernels": "read the cache with Triton kernels, on CUDA devices",
}


def add_options(draw: argparse.ArgumentParser) -> None:
    add_pipeline_options(draw)
    draw.add_argument(
        "--prompt",
        action="append",
        required=True,
        help="a prompt, or the name of a class; may be given repeatedly",
    )
    draw.add_argument(
        "--plan", type=Path, help="of `calibrate` or `tune`; instead of interval and cut"
    )
    schedule = {
        "--interval": (int, f"refresh one step in this many (default: {INTERVAL})"),
        "--center": (float, "crowd refreshes around this step instead"),
        "--power": (float, f"how densely; with --center (default: {NonUniform.power})"),
    }
    for option, (kind, purpose) in schedule.items():
        draw.add_argument(option, type=kind, default=argparse.SUPPRESS, help=purpose)
    draw.add_argument("--hoist", choices=("once", "table"), help="what to compute before the steps")
    draw.add_argument("--cache-dtype", choices=CACHE_DTYPES, help="what to keep cached values as")
    for option, purpose in FLAGS.items():
        draw.add_argument(f"--{option}", action="store_true", help=purpose)
    draw.add_argument("--compare", action="store_true", help="draw without fxcache as well")
    draw.add_argument("--out", type=Path, default=Path("fxcache.png"), help="the picture to write")
    draw.add_argument("--report", type=Path, help="save the report here, as JSON")


def run(arguments: argparse.Namespace) -> Result:
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
            "a comparison has no report",
            where="--compare --report",
            remedy="leave one of them out; --compare --json tells all that was compared",
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
    """What ``fxcache.optimize`` is told besides the schedule and the cut."""
    dtype = arguments.cache_dtype
    flags = {name: getattr(arguments, name) for name in (f.replace("-", "_") for f in FLAGS)}
    cache = CacheConfig(dtype=getattr(torch, dtype) if dtype else None, **flags)
    return {"hoist": arguments.hoist, "cache": cache}


def policy_from(arguments: argparse.Namespace) -> Policy | None:
    """What the options ask for, None where a plan is to say it; ConfigError for both."""
    names = ("interval", "center", "power")
    given = {name: getattr(arguments, name) for name in names if name in arguments}
    if arguments.plan and not given:
        return None
    if arguments.plan or ("power" in given and "center" not in given):
        raise ConfigError(
            "the plan has its schedule" if arguments.plan else "a uniform schedule has no power",
            where=" ".join(f"--{name} {value:g}" for name, value in given.items()),
            remedy="leave out --plan, or these" if arguments.plan else "pass --center as well",
        )
    options = {"interval": INTERVAL} | given
    return NonUniform(**options) if "center" in options else Uniform(**options)


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
