"""``fxcache export``: write the denoisers of a pipeline as artifacts."""

import argparse
from pathlib import Path

from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import Result, pipeline_from
from fxcache.deploy.export import export
from fxcache.deploy.files import MANIFEST


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_drawing_options(command)
    command.add_argument("--out", type=Path, default=Path("artifact"), help="the folder to write")
    help_ = "leave out the weights; fxcache.load then needs a state dict"
    command.add_argument("--no-weights", action="store_true", help=help_)


def run(arguments: argparse.Namespace) -> Result:
    """Generate the images, and write the graphs that they needed."""
    drawing, pipeline = drawing_from(arguments), pipeline_from(arguments)
    with drawing.optimized(pipeline) as target:
        drawing.draw(pipeline, drawing.steps)
        folder = export(target, arguments.out, weights=not arguments.no_weights)
    manifests = sorted(folder.rglob(MANIFEST))
    sizes = {str(manifest.parent): size_of(manifest.parent) for manifest in manifests}
    lines = [f"wrote {name}: {size:,} bytes" for name, size in sizes.items()]
    return {"artifacts": sizes}, "\n".join(lines)


def size_of(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
