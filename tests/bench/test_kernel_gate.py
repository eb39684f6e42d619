"""Tests that this project's gate holds the resources of its Triton kernels."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import triton

from bench import gate
from bench.kernel_gate import CASE, check_kernels, update_kernels
from fxcache.gate.exact import graphs
from fxcache.gate.expected import expected_file
from fxcache.kernels import binaries
from fxcache.kernels.recorded import kernel_names, recorded
from tests.gate.subjects import texts

EXPECTED = expected_file(str(gate.EXPECTED), "cpu")
NAME, PLACE = "relative_l1", "kernel_resources/relative_l1"
SUMS = ("examples", "FLUX, bf16", "sums_kernel", "sm_90")
pytestmark = pytest.mark.skipif(
    not recorded(NAME).is_of_this_triton, reason="the resources are recorded for another Triton"
)


@pytest.fixture
def kernels(tmp_path, monkeypatch) -> Path:
    """A copy of the kernels."""
    folder = tmp_path / "kernels"
    shutil.copytree(binaries.HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(binaries, "HERE", folder)
    return folder


def change(kernels: Path, value: int) -> None:
    """Write another number of registers to the record of one kernel."""
    file = kernels / NAME / binaries.EXPECTED
    found: Any = json.loads(file.read_text())
    taken = found
    for part in SUMS:
        taken = taken[part]
    taken["registers"] = value
    file.write_text(json.dumps(found))


def found() -> dict[str, str]:
    outcome = check_kernels(EXPECTED)
    assert outcome is not None
    return texts(outcome)


def test_the_kernels_are_as_expected():
    assert found() == {}
    outcome = check_kernels(EXPECTED)
    assert outcome is not None
    assert set(outcome.measured.exact or {}) == {"kernel_resources"}
    assert outcome.counted > 500


@pytest.mark.usefixtures("kernels")
def test_a_copy_of_the_kernels_is_as_expected():
    assert found() == {}


def test_a_kernel_that_takes_more_registers_fails_by_name(kernels):
    change(kernels, 64)
    entry = f"{PLACE}/FLUX, bf16/sums_kernel/sm_90/registers"
    assert found() == {entry: f"{entry}: 48 → 64 (+33.3%)"}


def test_a_kernel_that_changed_since_it_was_recorded_fails_by_name(kernels):
    file = kernels / NAME / "kernel.py"
    file.write_text(file.read_text() + "\n")
    ((entry, text),) = found().items()
    assert entry == f"{PLACE}/sources"
    assert "record the resources: python -m fxcache.kernels.binaries --write" in text


def test_the_record_of_another_triton_is_not_compared(monkeypatch, capsys):
    monkeypatch.setattr(triton, "__version__", "3.0.0")
    monkeypatch.setattr(gate, "MODELS", {})
    assert check_kernels(EXPECTED) is None
    assert gate.main(["--tier", "exact"]) == 0
    assert "not compared" in capsys.readouterr().out


def test_the_command_holds_them_and_writes_reports(kernels, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gate, "MODELS", {})
    reports = ("--html", str(tmp_path / "a"), "--junit", str(tmp_path / "b"))
    assert gate.main(["--tier", "exact", *reports]) == 0
    assert "kernels: passed (" in capsys.readouterr().out
    assert "Every value is as expected" in (tmp_path / "a" / "kernels.html").read_text("utf-8")
    assert 'failures="0"' in (tmp_path / "b" / "kernels.xml").read_text("utf-8")
    change(kernels, 64)
    assert gate.main(["--tier", "exact"]) == 3
    assert gate.main(["--tier", "ratios"]) == 0


def test_an_update_writes_what_changed(kernels, tmp_path):
    file = tmp_path / "expected.json"
    shutil.copy(EXPECTED, file)
    update_kernels(file, "nothing changed")
    assert file.read_text() == EXPECTED.read_text()
    change(kernels, 64)
    update_kernels(file, "a wider block")
    updated = json.loads(file.read_text())
    assert updated["updates"][-1]["changed"] == {
        f"{PLACE}/FLUX, bf16/sums_kernel/sm_90/registers": [48, 64]
    }
    assert updated["cases"][CASE]["exact"] != json.loads(EXPECTED.read_text())["cases"][CASE]


def test_users_gates_read_the_record_unless_the_sources_changed(kernels, monkeypatch):
    monkeypatch.setattr(binaries, "found", lambda name: {"compiled": name})
    assert kernel_names() == sorted(file.parent.name for file in kernels.glob("*/kernel.py"))
    assert graphs.resources_of(NAME) == recorded(NAME).resources
    file = kernels / NAME / "kernel.py"
    file.write_text(file.read_text() + "\n")
    assert graphs.resources_of(NAME) == {"compiled": NAME}
