"""``fxcache compile``: compile an artifact to native code for this machine."""

import argparse
from pathlib import Path

from fxcache.commands.options import Result, say
from fxcache.deploy.compile import compile_artifact


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("artifact", type=Path, help="the folder of one model's artifact")
    help_ = "how often a run calls the model; several lengths may be named"
    command.add_argument("--steps", type=int, nargs="+", required=True, help=help_)
    command.add_argument("--device", default="cpu", help="the device to compile for")


def run(arguments: argparse.Namespace) -> Result:
    """Compile the artifact, and name the files."""
    folder = compile_artifact(arguments.artifact, arguments.steps, device=arguments.device, say=say)
    sizes = {str(file): file.stat().st_size for file in sorted(folder.iterdir())}
    lines = [f"wrote {name}: {size:,} bytes" for name, size in sizes.items()]
    return Result({"files": sizes}, "\n".join(lines))
