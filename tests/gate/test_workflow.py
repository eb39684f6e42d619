"""Tests the example of a workflow for GitHub Actions."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "examples" / "github" / "gate.yml"
SCHEMA = ("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")


def is_valid(file: Path) -> bool:
    """Return whether ``file`` fits GitHub's schema of workflows, which the checker brings along."""
    done = subprocess.run([sys.executable, *SCHEMA, str(file)], capture_output=True, check=False)
    return done.returncode == 0


def test_the_workflow_fits_githubs_schema():
    assert is_valid(WORKFLOW)


@pytest.mark.parametrize(
    ("right", "wrong"), [("runs-on", "run-on"), ("pull_request", "pull_requests")]
)
def test_a_wrong_workflow_is_noticed(right, wrong, tmp_path):
    file = tmp_path / "gate.yml"
    file.write_text(WORKFLOW.read_text().replace(right, wrong))
    assert not is_valid(file)


def test_its_command_exists():
    from fxcache import cli

    text = WORKFLOW.read_text()
    command = shlex.split(text[text.index("fxcache gate PIPELINE") :].split("- name")[0])
    assert cli.parser().parse_args(command[1:]).command
