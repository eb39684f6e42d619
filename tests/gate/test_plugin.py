"""Tests the pytest plugin as a user's own test suite uses it."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

import pytest_fxcache

pytest_plugins = ["pytester"]

SUITE = """
    import os

    import pytest
    import torch
    from torch import nn

    import fxcache


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return x + self.outer(torch.tanh(self.inner(x)))


    class Denoiser(nn.Module):
        def __init__(self, blocks=3):
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(Block() for _ in range(blocks))

        def forward(self, latent, timestep):
            for block in self.blocks:
                latent = block(latent)
            return latent * timestep


    def pytest_generate_tests(metafunc):
        metafunc.parametrize("depth", list(map(int, os.environ["DEPTHS"].split())))


    @pytest.mark.fxcache_gate(tiers=("exact",))
    def test_denoiser(fxcache_gate, depth, request):
        model = fxcache.optimize(Denoiser(depth).eval(), fxcache.Uniform(3), hoist=None)
        inputs = {"latent": torch.ones(2, 8), "timestep": torch.tensor(0.5)}
        number = request.node.callspec.indices["depth"]
        fxcache_gate(model, inputs, steps=6, case=f"denoiser {number}")
"""


OPTIONS = ("-W", "error", "-p", "no:cacheprovider")
# Runs the suite twice, in one process: each would import torch and Inductor for many seconds.
TWICE = """
import os, sys
from pathlib import Path

import pytest

os.environ["DEPTHS"] = "3"
assert pytest.main([*sys.argv[1:], "--fxcache-update", "first values"]) == 0
(file,) = Path().glob("expected-torch*.json")
written = file.read_text()
assert '"denoiser 0"' in written
assert '"reason": "first values"' in written
print("WRITTEN", flush=True)

os.environ["DEPTHS"] = "4 3"
status = pytest.main(sys.argv[1:])
assert file.read_text() == written
sys.exit(status)
"""


def test_values_are_written_and_held(pytester):
    """The first denoiser becomes deeper, the second is new."""
    pytester.makepyfile(test_gate=SUITE)
    result = pytester.run(sys.executable, pytester.makepyfile(twice=TWICE), *OPTIONS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = ["*1 passed*", "WRITTEN", "*2 failed*"]
    result.stdout.fnmatch_lines(lines)
    deeper = "*FAILED*graphs/full/operators/aten.linear.default: 6 → 8*"
    result.stdout.fnmatch_lines([deeper, "*there is no expected value*"])
    result.stdout.fnmatch_lines(['*write the new values: pytest --fxcache-update "why they*'])
    result.stdout.no_fnmatch_line("*torch.__trace*")


@pytest.mark.slow
def test_several_processes_write_no_file(pytester, monkeypatch):
    monkeypatch.setenv("DEPTHS", "3")
    pytester.makepyfile(test_gate=SUITE)
    result = pytester.runpytest_subprocess(*OPTIONS, "-n", "1", "--fxcache-update", "why")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run pytest without -n*"])
    assert not list(pytester.path.glob("*.json"))


MISUSED = """
    import pytest


    @pytest.mark.fxcache_gate(("exact",))
    def test_by_position(fxcache_gate):
        fxcache_gate(None)


    @pytest.mark.fxcache_gate(tier="exact")
    def test_unknown(fxcache_gate):
        fxcache_gate(None)
"""


def test_options_of_the_marker_are_checked(pytester):
    pytester.makepyfile(MISUSED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*takes tiers, rounds, margin by name, not ('exact',)*"])
    result.stdout.fnmatch_lines(["*takes tiers, rounds, margin by name, not tier*"])


@pytest.mark.parametrize(
    ("folder", "name"), [("", "test_a.py::test_speed"), ("in/", "test_a.py::T::b")]
)
def test_cases_have_the_name_of_their_file(folder, name):
    node = SimpleNamespace(nodeid=f"{folder}{name}")
    assert pytest_fxcache.name_of(cast(Any, SimpleNamespace(node=node))) == name


def test_a_case_is_used_once():
    config: Any = SimpleNamespace(stash=pytest.Stash())
    pytest_fxcache.require_first_use(config, "file::test")
    pytest_fxcache.require_first_use(config, "file::other")
    with pytest.raises(pytest.fail.Exception, match="name one with case="):
        pytest_fxcache.require_first_use(config, "file::test")


def test_the_plugin_does_not_import_torch():
    code = (
        "import sys, pytest_fxcache; sys.exit('torch' in sys.modules or 'fxcache' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
