"""Tests that native code which this machine cannot load is an error of compilation, no crash."""

import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

import fxcache
from fxcache.deploy.native.format import PACKAGE
from fxcache.deploy.native.trial import require_loads

CPU = torch.device("cpu")
GRAPHS = ("full_0", "cached_skip_0")
ABORTS = "#include <cstdlib>\n__attribute__((constructor)) static void begin() { abort(); }\n"


def test_code_that_loads_passes(compiled):
    require_loads(compiled / "native" / PACKAGE, GRAPHS, CPU)


def test_code_that_crashes_is_an_error(compiled, tmp_path):
    with pytest.raises(fxcache.errors.ArtifactError, match="ended with status -6"):
        require_loads(aborting(compiled / "native" / PACKAGE, tmp_path), GRAPHS, CPU)


def test_a_missing_graph_is_an_error(compiled):
    with pytest.raises(fxcache.errors.ArtifactError, match="ended with status 1"):
        require_loads(compiled / "native" / PACKAGE, ["another"], CPU)


def aborting(package: Path, folder: Path) -> Path:
    """Copy compiled graphs, with libraries that end the process when they are loaded."""
    source, library, changed = folder / "aborts.cpp", folder / "aborts.so", folder / PACKAGE
    source.write_text(ABORTS)
    command = ["g++", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(package) as whole, zipfile.ZipFile(changed, "w") as copy:
        for entry in whole.infolist():
            is_code = entry.filename.endswith(".so")
            copy.writestr(entry, library.read_bytes() if is_code else whole.read(entry))
    return changed
