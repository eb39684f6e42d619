"""``fxcache sign``: sign an artifact with an Ed25519 key."""

import argparse
from pathlib import Path

from fxcache.commands.options import Result
from fxcache.deploy.signatures import NATIVE, SIGNATURE, sign


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("artifact", type=Path, help="the folder that fxcache export wrote")
    help_ = "an Ed25519 private key in PEM, without a password"
    command.add_argument("--key", type=Path, required=True, help=help_)


def run(arguments: argparse.Namespace) -> Result:
    """Write a signature beside each manifest, and name the files."""
    first = sign(arguments.artifact, arguments.key)
    native = first.parent / NATIVE / SIGNATURE
    files = [str(file) for file in (first, native) if file.exists()]
    return Result({"files": files}, "\n".join(f"wrote {file}" for file in files))
