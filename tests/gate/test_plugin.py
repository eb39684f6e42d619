"""Tests the pytest plugin as a user's own test suite uses it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import pytest_fxcache
from fxcache.gate.exact import measure
from pytest_fxcache_unused import Observer
from tests.gate.running import OPTIONS, run_here

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


@pytest.mark.usefixtures("clean_dynamo")
def test_values_are_written_and_held(pytester, monkeypatch):
    """The first denoiser becomes deeper, the second is new."""
    monkeypatch.setattr(measure, "launches_of", lambda _: {})  # which other tests measure
    pytester.makepyfile(test_gate=SUITE)
    monkeypatch.setenv("DEPTHS", "3")
    run_here("--fxcache-update", "first values").stdout.fnmatch_lines(["*1 passed*"])
    (file,) = pytester.path.glob("expected-torch*.json")
    written = file.read_text()
    assert '"denoiser 0"' in written
    assert '"reason": "first values"' in written

    monkeypatch.setenv("DEPTHS", "4 3")
    reports = ("--fxcache-html", "report/pages", "--fxcache-junit", "report/junit")
    result = run_here(*reports)
    assert file.read_text() == written
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*2 failed*"])
    deeper = [
        "*FAILED*captures/0/cut: residual blocks.0..blocks.2 → residual blocks.0..blocks.3",
        "*graphs/full/flops: *aten.linear.default 6 → 8*",
    ]
    result.stdout.fnmatch_lines([*deeper, "*nothing is expected of this case yet*"])
    result.stdout.fnmatch_lines(['*write the new values: pytest --fxcache-update "why they*'])
    result.stdout.no_fnmatch_line("*torch.__trace*")
    result.stdout.no_fnmatch_line("*unused expected values*")
    pages, suites = (sorted(pytester.path.glob(f"report/{kind}/*")) for kind in ("pages", "junit"))
    assert [page.name[:11] for page in pages] == ["denoiser-0-", "denoiser-1-"]
    assert [suite.suffix for suite in suites] == [".xml", ".xml"]
    assert "denoiser 0: <span" in pages[0].read_text("utf-8")
    assert "aten.linear.default 6 → 8" in suites[0].read_text("utf-8")

    monkeypatch.setenv("DEPTHS", "")
    assert run_here().ret == pytest.ExitCode.OK, "a test that is skipped tells nothing"


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
    result = run_here()
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
    config.stash[pytest_fxcache.OBSERVER] = Observer(config)
    file = Path("expected.json")
    pytest_fxcache.require_first_use(config, file, "test")
    pytest_fxcache.require_first_use(config, file, "other")
    with pytest.raises(pytest.fail.Exception, match="name one with case="):
        pytest_fxcache.require_first_use(config, file, "test")


def test_reports_of_cases_have_names_of_their_own():
    names = [
        pytest_fxcache.report_name(Path(folder) / "expected.json", case)
        for folder in ("a", "b")
        for case in ("test_a.py::test_x[1/2]", "test_a.py::test_x[1 2]", 90 * "long")
    ]
    assert len(set(names)) == 6
    assert names[0].startswith("test_a.py-test_x-1-2-")
    assert all(len(name) < 100 and "/" not in name for name in names)


def test_the_plugin_does_not_import_torch():
    code = (
        "import sys, pytest_fxcache; sys.exit('torch' in sys.modules or 'fxcache' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
