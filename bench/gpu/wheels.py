"""Installs missing packages from a folder of wheels, for machines without a network."""

import subprocess
import sys
from pathlib import Path


def install(wheels: Path, target: Path) -> None:
    """Unpack every wheel of the folder to ``target``, and add it to ``sys.path``.

    Nothing that is installed already changes, and nothing that the wheels depend on is looked for:
    the folder holds all that is missing.
    """
    files = sorted(map(str, wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--upgrade", "--find-links", str(wheels), "--target", str(target), *files]
    subprocess.run(command, check=True)  # noqa: S603
    sys.path.insert(0, str(target))
