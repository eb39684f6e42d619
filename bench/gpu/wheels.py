"""Packages that a machine without a network lacks, from a folder of wheels."""

import subprocess
import sys
from pathlib import Path


def install(wheels: Path, target: Path) -> None:
    """Unpack every wheel of the folder into ``target``, and let this process import from there.

    Nothing that is installed already changes, and nothing that the wheels depend on is looked for:
    the folder holds all that is missing.
    """
    files = sorted(map(str, wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--upgrade", "--find-links", str(wheels), "--target", str(target), *files]
    subprocess.run(command, check=True)  # noqa: S603
    sys.path.insert(0, str(target))
