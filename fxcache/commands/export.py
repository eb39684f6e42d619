"""``fxcache export``: write the denoisers of a pipeline as artifacts, or as ONNX."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from fxcache.api import report
from fxcache.capture.config import CaptureConfig
from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import Result, pipeline_from
from fxcache.deploy.export import export
from fxcache.deploy.files import MANIFEST
from fxcache.deploy.onnx.export import export_onnx, require_packages
from fxcache.deploy.onnx.schedule import SCHEDULE
from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import conditions
from fxcache.pipelines.drawing import Drawing
from fxcache.report.report import Report
from fxcache.serving import BatchedPipeline, rows_of

NOT_ONNX = {
    "no_weights": "ONNX files need their weights",
    "batched": "ONNX files are not for a Batcher",
}
ROWS = 3  # pictures in the call that shows which inputs have rows
MARKERS = {"artifact": MANIFEST, "onnx": SCHEDULE}  # the file that each folder has


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_drawing_options(command)
    command.add_argument("--out", type=Path, default=Path("artifact"), help="the folder to write")
    format_ = "artifact, for fxcache.load; or onnx, for other runtimes, for runs of --steps steps"
    command.add_argument("--format", choices=MARKERS, default="artifact", help=format_)
    help_ = "leave out the weights; fxcache.load then needs a state dict"
    command.add_argument("--no-weights", action="store_true", help=help_)
    help_ = "graphs for any number of rows, for a Batcher and `fxcache serve`"
    command.add_argument("--batched", action="store_true", help=help_)


def run(arguments: argparse.Namespace) -> Result:
    """Generate the images, and write the graphs that they needed."""
    as_onnx = arguments.format == "onnx"
    if as_onnx:
        require_packages()
        require_possible(arguments)
    drawing, pipeline = drawing_from(arguments), pipeline_from(arguments)
    if arguments.batched:
        drawing = for_any_rows(drawing, pipeline)
    with drawing.optimized(pipeline) as target:
        if arguments.batched:
            rows = 2 * len(drawing.prompts)  # with and without the prompt
            with BatchedPipeline(pipeline, max_batch=rows) as batched:
                drawing.draw(pipeline, drawing.steps, call=batched)
        else:
            drawing.draw(pipeline, drawing.steps)
        if as_onnx:
            folder = export_onnx(target, arguments.out, run_lengths(target))
        else:
            folder = export(target, arguments.out, weights=not arguments.no_weights)
    written = sorted(folder.rglob(MARKERS[arguments.format]))
    sizes = {str(marker.parent): size_of(marker.parent) for marker in written}
    lines = [f"wrote {name}: {size:,} bytes" for name, size in sizes.items()]
    return Result({"artifacts": sizes}, "\n".join(lines))


def require_possible(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for options that ONNX excludes."""
    for option, cause in NOT_ONNX.items():
        if getattr(arguments, option):
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(
                cause,
                where=f"--format onnx {name}",
                remedy=f"leave out {name}",
            )


def for_any_rows(drawing: Drawing, pipeline: Any) -> Drawing:
    """Return ``drawing`` with captures whose inputs may have any number of rows."""
    prompts = (list(drawing.prompts) * ROWS)[:ROWS]
    rows = rows_of(pipeline, conditions(pipeline, prompts), num_inference_steps=drawing.steps)
    capture = CaptureConfig(dynamic=rows)
    return replace(drawing, options={**drawing.options, "capture": capture})


def run_lengths(target: Any) -> list[int]:
    """Return how often the runs so far called a denoiser: some noise schedulers call it twice."""
    reported = report(target)
    reports = [reported] if isinstance(reported, Report) else reported.components.values()
    return sorted({run.steps for part in reports for run in part.runs})


def size_of(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
