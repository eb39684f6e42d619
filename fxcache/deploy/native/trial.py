"""Loads native code in another process, because code that the compiler linked wrongly crashes.

``python -m fxcache.deploy.native.trial FILE DEVICE NAME...`` loads graphs by name, and ends.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from fxcache._torch import MachineCode
from fxcache.another_process import run_python
from fxcache.errors import ArtifactError


def require_loads(file: Path, names: Iterable[str], device: torch.device) -> None:
    """Raise ArtifactError unless this machine can load the graphs of a file.

    Args:
        file: The file with the compiled graphs.
        names: The names of the graphs.
        device: The device that they were compiled for.
    """
    done = run_python("-W", "ignore", "-m", __name__, str(file), str(device), *names)
    if done.returncode != 0:
        output = done.stderr.strip().rpartition("\n")[2][:200]
        raise ArtifactError(
            "the compiled code cannot be loaded: a process that tried it ended with status "
            f"{done.returncode}" + (f" ({output})" if output else ""),
            where=str(file),
            remedy="use a C++ compiler that links the same shared libstdc++ as torch (set CXX)",
        )


def main(file: str, device: str, *names: str) -> None:
    """Load graphs by name."""
    for name in names:
        MachineCode(Path(file), name, torch.device(device))


if __name__ == "__main__":
    main(*sys.argv[1:])
