"""Tests the resources of each kernel's machine code against ``binaries.json``."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.comparing import from_compiling

KERNELS = Path(__file__).parents[2] / "kernels"
FOLDERS = sorted(file.parent.name for file in KERNELS.glob("*/kernel.py"))


@pytest.fixture(scope="module")
def found() -> Any:
    """Compile the kernels in another process, because they may be interpreted in this one."""
    return from_compiling("fxcache.kernels.binaries")


def test_every_kernel_is_compiled(found):
    assert sorted(found) == FOLDERS


@pytest.mark.parametrize("name", FOLDERS)
def test_binaries_have_the_expected_resources(found, name):
    expected = json.loads((KERNELS / name / "binaries.json").read_text())
    if expected["triton"] != found[name]["triton"]:
        pytest.skip(f"expected values are of Triton {expected['triton']}")
    assert found[name] == expected, "if it is meant: python -m fxcache.kernels.binaries --write"


@pytest.mark.parametrize("name", FOLDERS)
def test_kernels_have_no_spills_full_width_loads_and_long_offsets(found, name):
    for example, kernels in found[name]["examples"].items():
        for kernel, targets in kernels.items():
            assert targets.keys() == {"sm_80", "sm_90", "gfx942"}
            for target, taken in targets.items():
                assert taken["spills"] == taken["short_offsets"] == 0, (example, kernel, target)
                assert taken["loads"] == 128, (example, kernel, target)
