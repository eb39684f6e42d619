"""The scripts that time on a GPU, on the CPU: every way of theirs runs, and adds up."""

import sys

import pytest
import torch

from bench import kernels, steps
from fxcache.kernels.residual_norm_modulate import examples
from tests import tiny


@pytest.mark.usefixtures("clean_dynamo")
def test_kernels_are_timed_against_a_copy_of_their_bytes(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    calls = []

    def timer(call):
        calls.append(call())
        return float(len(calls))

    inputs = examples.inputs((2, 3, 32), torch.float32, "cpu")
    found = kernels.measured(examples, inputs, timer)
    tokens, samples = 2 * 3 * 32 * 4, 2 * 32 * 4
    assert found == {
        "kernel_ms": 1.0,
        "eager_ms": 2.0,
        "inductor_ms": 3.0,
        "copy_ms": 4.0,
        "bytes": 3 * tokens + 2 * samples,
        "of_copy": 4.0,
    }
    torch.testing.assert_close(calls[0][0], calls[1][0], rtol=1e-4, atol=1e-4)
    assert calls[3].numel() == found["bytes"] // 2


@pytest.mark.usefixtures("clean_dynamo")
def test_steps_are_timed_in_every_way(monkeypatch):
    monkeypatch.setattr(steps, "REPEATS", 2)
    monkeypatch.setattr(steps, "WARM", 1)
    monkeypatch.setattr(steps, "WAYS", {"eager": None, "compiled": {"backend": "aot_eager"}})

    def build(device: str):
        return tiny.small_unet(), {**tiny.inputs(), "timestep": torch.tensor(500)}

    found = steps.results(build, "cpu", {"hoist": "once"})
    assert found.keys() == {"eager", "compiled"}
    for way in found.values():
        assert min(way["original_ms"], way["refresh_ms"], way["reuse_ms"]) > 0
        assert 1 < way["interval 2"]["ideal"] < way["interval 5"]["ideal"]


def test_realised_and_ideal_speedups():
    assert steps.speedup(10, 10, 10, 5) == 1
    assert steps.speedup(12, 10, 1, 3) == 3


@pytest.mark.parametrize("script", [kernels, steps])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_timed(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit):
        script.main()
    assert "no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
