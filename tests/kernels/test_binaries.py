"""Tests the resources of each kernel's machine code against ``binaries.json``.

While the sources of a kernel are those from which the file was written, its resources are those in
the file. Compiling all kernels again takes half a minute: ``make test-slow`` does.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import triton

from tests.kernels.comparing import from_compiling

KERNELS = Path(__file__).parents[2] / "kernels"
FOLDERS = sorted(file.parent.name for file in KERNELS.glob("*/kernel.py"))
UPDATE = "python -m fxcache.kernels.binaries --write"


def expected(name: str) -> Any:
    """Return the expected resources of a kernel. Those of another Triton say nothing."""
    kernels = json.loads((KERNELS / name / "binaries.json").read_text())
    if kernels["triton"] != triton.__version__:
        pytest.skip(f"expected values are of Triton {kernels['triton']}")
    return kernels


@pytest.mark.parametrize("name", FOLDERS)
def test_resources_are_those_of_these_sources(name):
    from fxcache.kernels.binaries import sources_digest

    assert expected(name)["sources"] == sources_digest(name), f"run {UPDATE}"


@pytest.fixture(scope="module")
def compiled() -> Any:
    """Compile the kernels in another process, because they may be interpreted in this one."""
    return from_compiling("fxcache.kernels.binaries")


@pytest.mark.slow
def test_binaries_have_the_expected_resources(compiled):
    assert sorted(compiled) == FOLDERS
    for name in FOLDERS:
        assert compiled[name] == expected(name), f"if it is meant: {UPDATE}"


@pytest.mark.parametrize("name", FOLDERS)
def test_kernels_have_no_spills_full_width_loads_and_long_offsets(name):
    for example, kernels in expected(name)["examples"].items():
        for kernel, targets in kernels.items():
            assert targets.keys() == {"sm_80", "sm_90", "gfx942"}
            for target, taken in targets.items():
                assert taken["spills"] == taken["short_offsets"] == 0, (example, kernel, target)
                assert taken["loads"] == 128, (example, kernel, target)
