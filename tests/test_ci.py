"""Tests the command of CI: ``make test``, in an environment without the user's settings."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"
MAKE = """#!/usr/bin/env bash
echo "asked for: $*"
echo "at home: $(ls -A "$HOME")"
echo "files: $(ls -A "$TMPDIR")"
env
exit ${MAKE_STATUS:-0}
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Make a home with caches and settings, and a ``make`` that prints its arguments."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text(MAKE)
    (tmp_path / "bin" / "make").chmod(0o755)
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").touch()
    return tmp_path


def run(user: Path, **variables: str) -> tuple[int, str, dict[str, str]]:
    environment = os.environ | {"HOME": str(user), "TMPDIR": str(user)} | variables
    environment |= {"PATH": f"{user / 'bin'}:{os.environ['PATH']}", "PYTEST_ADDOPTS": ""}
    environment.pop("PIP_CONFIG_FILE", None)
    done = subprocess.run(
        ["bash", str(RUN)], env=environment, capture_output=True, text=True, check=False
    )
    printed = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return done.returncode, done.stdout, printed


def test_it_runs_make_test_with_an_empty_home_and_no_caches(user):
    caches = {name: str(user / "full") for name in ("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")}
    caches |= {name: str(user) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    caches |= {name: str(user) for name in ("MPLCONFIGDIR", "XDG_DATA_DIRS", "XDG_DATA_HOME")}
    status, output, found = run(user, **caches)
    assert status == 0
    assert output.startswith("asked for: test\nat home: \nfiles: \n")
    scratch = Path(found["HOME"]).parent
    for name in (*caches, "XDG_CONFIG_HOME", "TMPDIR"):
        assert Path(found[name]).is_relative_to(scratch), name
    assert not scratch.exists(), "the scratch folder is removed"


def test_it_hides_fonts_and_the_network_but_not_the_package_index(user):
    _, _, found = run(user, FONTCONFIG_PATH="/usr/share/fonts", HF_HUB_OFFLINE="0")
    scratch = Path(found["HOME"]).parent
    assert Path(found["FONTCONFIG_PATH"]).is_relative_to(scratch)
    assert Path(found["FONTCONFIG_FILE"]).is_relative_to(scratch)
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["PYTEST_ADDOPTS"].split() == ["-p", "tests.bare_machine"]
    assert found["PIP_CONFIG_FILE"] == str(user / ".config" / "pip" / "pip.conf")


@pytest.mark.parametrize("status", [1, 2])
def test_it_fails_as_make_does(user, status):
    found, _, environment = run(user, MAKE_STATUS=str(status))
    assert found == status
    assert not Path(environment["HOME"]).exists()
