"""Tests the pytest plugin as a user's own test suite uses it."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SUITE = """
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


    @pytest.mark.fxcache_gate(tiers=("exact",))
    @pytest.mark.parametrize("depth", DEPTHS)
    def test_denoiser(fxcache_gate, depth, request):
        model = fxcache.optimize(Denoiser(depth).eval(), fxcache.Uniform(3), hoist=None)
        inputs = {"latent": torch.ones(2, 8), "timestep": torch.tensor(0.5)}
        number = request.node.callspec.indices["depth"]
        fxcache_gate(model, inputs, steps=6, case=f"denoiser {number}")
"""


def run(pytester: pytest.Pytester, depths: tuple[int, ...], *options: str) -> pytest.RunResult:
    """Run a suite that holds denoisers of these depths, in a process of its own as users do."""
    pytester.makepyfile(test_gate=SUITE.replace("DEPTHS", repr(depths)))
    return pytester.runpytest_subprocess("-W", "ignore", "-p", "no:cacheprovider", *options)


def test_values_are_written_and_held(pytester):
    """The first denoiser becomes deeper, the second is new."""
    run(pytester, (3,), "--fxcache-update", "first values").assert_outcomes(passed=1)
    (file,) = pytester.path.glob("expected-torch*.json")
    written = file.read_text()
    assert '"denoiser 0"' in written
    assert '"reason": "first values"' in written

    second = run(pytester, (4, 3))
    second.assert_outcomes(failed=2)
    second.stdout.fnmatch_lines(["*FAILED*graphs/full/operators/aten.linear.default: 6 → 8*"])
    second.stdout.fnmatch_lines(["*there is no expected value; add it with*"])
    assert file.read_text() == written


def test_several_processes_write_no_file(pytester):
    result = run(pytester, (3,), "-n", "1", "--fxcache-update", "why")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run pytest without -n*"])
    assert not list(pytester.path.glob("*.json"))


def test_the_plugin_does_not_import_torch():
    code = (
        "import sys, pytest_fxcache; sys.exit('torch' in sys.modules or 'fxcache' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
