"""Tests the bundled models: the exact tier of this project's own gate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gate import EXPECTED, MODELS, command
from bench.known_launches import recalled
from fxcache import cli
from fxcache.gate.expected import expected_file

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not expected_file(str(EXPECTED), "cpu").exists(),
    reason=f"no values are expected of torch {torch.__version__}",
)
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("model", MODELS)
def test_a_bundled_model_is_as_expected(model: str, capsys, tmp_path):
    page, junit = tmp_path / "gate.html", tmp_path / "gate.xml"
    reports = ("--html", str(page), "--junit", str(junit))
    with recalled():
        status = cli.main(command(model, "--tier", "exact", *reports))
    assert status == 0, capsys.readouterr().out
    assert "Every value is as expected" in page.read_text("utf-8")
    assert 'failures="0"' in junit.read_text("utf-8")


def test_expected_values_are_kept_for_the_tested_versions_of_torch():
    files = sorted(Path(EXPECTED).parent.glob("*.json"))
    versions = {json.loads(file.read_text("utf-8"))["torch"] for file in files}
    assert {"2.11", "2.13"} <= versions


@pytest.mark.slow
def test_exact_counts_are_the_same_in_four_processes_beside_two_busy_loops():
    loop = [sys.executable, "-c", "while True: pass"]
    gate = [sys.executable, "-m", "bench.gate", "--tier", "exact"]
    busy = [subprocess.Popen(loop) for _ in range(2)]
    try:
        gates = [subprocess.Popen(gate, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
        outputs = [process.communicate()[0].decode() for process in gates]
        assert [process.returncode for process in gates] == [0] * 4, outputs
    finally:
        for process in busy:
            process.kill()
            process.wait()
    held = (*MODELS, "kernels")
    assert all(f"{name}: passed (" in output for output in outputs for name in held)
