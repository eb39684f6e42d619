"""Exact sizes: the bytes of an artifact's graphs, and what ``import fxcache`` imports."""

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from fxcache.another_process import run_python
from fxcache.deploy.export import export
from fxcache.errors import ArtifactError, StateError

# Prints the modules that the import of fxcache adds to those of torch.
IMPORTED = """
import json, sys
import torch
before = set(sys.modules)
import fxcache
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def artifact_of(module: nn.Module) -> dict[str, Any]:
    """Return the number and the bytes of the graphs in an artifact, or why there can be none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = export(module, Path(folder) / "artifact", weights=False)
        except ArtifactError as error:
            return {"refused": error.what}
        sizes = [file.stat().st_size for file in sorted(written.glob("graphs/*.json"))]
    return {"graphs": len(sizes), "graph_bytes": sum(sizes)}


@cache
def imports() -> dict[str, int]:
    """Return how many modules of other packages ``import fxcache`` imports after ``import torch``.

    It takes seconds, and is measured once a process.

    Raises:
        StateError: The import fails in a new process.
    """
    ran = run_python("-P", "-c", IMPORTED)  # -P: not from the current folder
    if ran.returncode:
        raise StateError(
            f"import fxcache fails in a new process: {ran.stderr.strip()[-500:]}",
            where=sys.executable,
            remedy="install fxcache, or name its folder in PYTHONPATH",
        )
    packages: dict[str, int] = {}
    for name in json.loads(ran.stdout):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package != "fxcache":
            packages[package] = packages.get(package, 0) + 1
    return packages
