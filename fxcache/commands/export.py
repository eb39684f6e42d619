"""``fxcache export``: write the denoisers of a pipeline as artifacts, or as ONNX."""

import argparse
from pathlib import Path
from typing import Any

from fxcache.api import report
from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import Result, pipeline_from
from fxcache.deploy.export import export
from fxcache.deploy.files import MANIFEST
from fxcache.deploy.onnx.export import export_onnx, require_packages
from fxcache.deploy.onnx.schedule import SCHEDULE
from fxcache.errors import ConfigError
from fxcache.report.report import Report

MARKERS = {"artifact": MANIFEST, "onnx": SCHEDULE}  # the file that each folder has


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_drawing_options(command)
    command.add_argument("--out", type=Path, default=Path("artifact"), help="the folder to write")
    format_ = "artifact, for fxcache.load; or onnx, for other runtimes, for runs of --steps steps"
    command.add_argument("--format", choices=MARKERS, default="artifact", help=format_)
    help_ = "leave out the weights; fxcache.load then needs a state dict"
    command.add_argument("--no-weights", action="store_true", help=help_)


def run(arguments: argparse.Namespace) -> Result:
    """Generate the images, and write the graphs that they needed."""
    as_onnx = arguments.format == "onnx"
    if as_onnx:
        require_packages()
        if arguments.no_weights:
            raise ConfigError(
                "ONNX files need their weights",
                where="--format onnx --no-weights",
                remedy="leave out --no-weights",
            )
    drawing, pipeline = drawing_from(arguments), pipeline_from(arguments)
    with drawing.optimized(pipeline) as target:
        drawing.draw(pipeline, drawing.steps)
        if as_onnx:
            folder = export_onnx(target, arguments.out, run_lengths(target))
        else:
            folder = export(target, arguments.out, weights=not arguments.no_weights)
    written = sorted(folder.rglob(MARKERS[arguments.format]))
    sizes = {str(marker.parent): size_of(marker.parent) for marker in written}
    lines = [f"wrote {name}: {size:,} bytes" for name, size in sizes.items()]
    return {"artifacts": sizes}, "\n".join(lines)


def run_lengths(target: Any) -> list[int]:
    """Return how often the runs so far called a denoiser: some noise schedulers call it twice."""
    reported = report(target)
    reports = [reported] if isinstance(reported, Report) else reported.components.values()
    return sorted({run.steps for part in reports for run in part.runs})


def size_of(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
