"""The environment of a result: device, driver, versions and the revision of the code."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from bench.gpu.setup import Setup

ROOT = Path(__file__).parents[2]
REVISION = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40")
UNKNOWN = "unknown"


def environment_of(setup: Setup, revision: str | None = None) -> dict[str, str]:
    """Return the environment for the JSON files. Outside of a git checkout, pass ``revision``."""
    return {
        "device": setup.runtime.get_device_name(),
        "driver": first_line(setup.driver_command),
        "torch": torch.__version__,
        "triton": version("triton"),
        "python": platform.python_version(),
        "revision": revision or first_line(REVISION),
    }


def first_line(command: Sequence[str]) -> str:
    """Return the first line that the command prints; "unknown" if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return done.stdout.strip().partition("\n")[0]
