"""Tests a checkout on the path that no installer has seen, as on a machine that was lent."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkout, and a Python that has all packages but fxcache."""
    folder = tmp_path_factory.mktemp("machine")
    venv.create(folder / "python", symlinks=True)
    (packages,) = folder.glob("python/lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "fxcache" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    (folder / "checkout").mkdir()
    for name in ("fxcache", "bench"):
        (folder / "checkout" / name).symlink_to(ROOT / name)
    return folder


def run(machine: Path, *arguments: str) -> str:
    """Return the output of Python, for which the checkout is the current folder."""
    command = [str(machine / "python" / "bin" / "python"), "-W", "ignore", *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=machine / "checkout",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_tells_that_it_is_not_installed(machine):
    assert run(machine, "-m", "fxcache.cli", "--version").strip() == "not installed"


def test_a_gate_and_peers_measure_the_checkout(machine):
    code = (
        "from bench.gpu.peers import require_packages\n"
        "from bench.peers import ours\n"
        "from fxcache.gate.exact.sizes import imports\n"
        "require_packages([ours.AUTOMATIC, ours.FEWER])\n"
        "print(sorted(imports()))\n"
    )
    assert "safetensors" in run(machine, "-c", code)
