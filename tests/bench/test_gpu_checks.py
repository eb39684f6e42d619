"""Tests that each check of the GPU bench notices the defect that it is for."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

import fxcache
from bench.gpu import correctness, hoisting, kernel_checks, kernel_times, step_times, streams
from bench.gpu.items import CheckError
from bench.gpu.kernel_cases import FOLDERS, SMALL, Case, cases
from bench.gpu.models import MODELS
from bench.gpu.setup import DRY_RUN, GPU
from bench.gpu.trajectories import model_of, trajectory
from fxcache.kernels.residual_norm_modulate import examples

FLOAT = torch.float32


def test_a_refresh_that_differs_in_a_bit_is_noticed(monkeypatch):
    def changed(model: Any, policy: Any, options: Any) -> Any:
        model.head.bias.add_(1e-3)
        return fxcache.optimize(model, policy=policy, **options)

    monkeypatch.setattr(correctness, "optimize", changed)
    with pytest.raises(CheckError, match="refresh-all equals the plain module"):
        correctness.check_eager(DRY_RUN, "DiT", FLOAT)


def test_reuse_that_recomputes_is_noticed(monkeypatch):
    monkeypatch.setattr(correctness, "EVERY_THIRD", fxcache.Explicit((0, 1, 2, 3, 4)))
    monkeypatch.setattr(correctness, "relative_error", lambda *_: 0.0)
    with pytest.raises(CheckError, match="reuse differs"):
        correctness.check_eager(DRY_RUN, "DiT", FLOAT)


@pytest.mark.usefixtures("clean_dynamo")
def test_another_number_of_graphs_is_noticed():
    one = correctness.Feature(fxcache.Uniform(3), {}, graphs=1)
    with pytest.raises(CheckError, match="1 graphs are compiled"):
        correctness.check_compiled(DRY_RUN, "DiT", FLOAT, one, {"backend": "eager"})


@pytest.mark.usefixtures("clean_dynamo")
def test_a_compiler_that_changes_values_is_noticed():
    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        return lambda *inputs: [value * 1.01 for value in graph(*inputs)]

    with pytest.raises(CheckError, match="compiled equals eager"):
        correctness.check_compiled(DRY_RUN, "DiT", FLOAT, correctness.PLAIN, {"backend": backend})


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_request_that_another_stream_spoils_is_noticed(monkeypatch, wrong):
    calls = []

    def started(*arguments: Any) -> Any:
        outputs = original(*arguments)
        calls.append(outputs)
        return [x + 1 for x in outputs] if len(calls) % 2 != wrong else outputs

    original = streams.started
    monkeypatch.setattr(streams, "started", started)
    name = ("wrong_first", "wrong_second")[wrong]
    with pytest.raises(CheckError, match=f"'{name}': {DRY_RUN.trajectories}"):
        streams.check(DRY_RUN, "DiT", delayed=1, in_session=False)


def test_requests_on_two_streams_share_buffers():
    """The second request must get the first one's buffers, or the check would show nothing."""
    one_pair, many = (replace(DRY_RUN, trajectories=n) for n in (1, 4))
    found = [
        streams.check(setup, "DiT", -1, in_session=False)["cached_bytes"]
        for setup in (one_pair, many)
    ]
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("options", [{"hoist": "once", "offload": True}])
def test_weights_that_do_not_leave_the_device_are_noticed(options):
    """The CPU does not count as an accelerator here, so that nothing is offloaded."""
    with pytest.raises(CheckError, match="weights are offloaded if asked"):
        hoisting.check(DRY_RUN, "DiT", FLOAT, options)


@pytest.mark.parametrize("case", cases(DRY_RUN), ids=lambda case: case.name)
def test_a_kernel_that_leaves_out_a_value_is_noticed(case):
    class Broken:
        eager = staticmethod(case.examples.eager)

        @staticmethod
        def run(*arguments: Any) -> Any:
            found = case.examples.run(*arguments)
            first = found if isinstance(found, torch.Tensor) else found[0]
            first.view(-1)[0] = torch.nan if first.is_floating_point() else -100
            return found

    kernel_checks.compare(case)
    with pytest.raises(CheckError, match="as exact as PyTorch"):
        kernel_checks.compare(Case(case.name, Broken, case.inputs))


def test_tests_of_a_kernel_that_fail_are_noticed(monkeypatch):
    none_chosen = replace(DRY_RUN, kernel_tests=("-k", "no_such_test"))
    with pytest.raises(CheckError, match="all tests of the kernel pass"):
        kernel_checks.run_tests(none_chosen, "relative_l1")


def test_every_kernel_has_a_small_call():
    assert sorted(SMALL) == FOLDERS
    assert len(cases(replace(GPU, device="meta"))) > len(SMALL)


@pytest.mark.usefixtures("clean_dynamo")
def test_kernels_are_timed_against_a_copy_of_their_bytes(monkeypatch):
    calls = []

    def timer(setup: Any, call: Any) -> float:
        calls.append(call())
        return float(len(calls))

    monkeypatch.setattr(kernel_times, "kernel_ms", timer)
    case = Case("", examples, lambda: examples.inputs((2, 3, 32), FLOAT, "cpu"))
    found = kernel_times.measure(DRY_RUN, case)
    tokens, samples = 2 * 3 * 32 * 4, 2 * 32 * 4
    nbytes = 3 * tokens + 2 * samples
    assert found == {
        "kernel_ms": 1.0,
        "eager_ms": 2.0,
        "inductor_ms": 3.0,
        "copy_ms": 4.0,
        "bytes": nbytes,
        "gigabytes_per_second": nbytes / 1e6,
        "share_of_copy": 4.0,
        "speedup_over_inductor": 3.0,
    }
    torch.testing.assert_close(calls[0][0], calls[1][0], rtol=1e-4, atol=1e-4)
    assert calls[3].numel() == nbytes // 2


def test_realised_and_ideal_speedups():
    assert step_times.speedup(10, 10, 10, 5) == 1
    assert step_times.speedup(12, 10, 1, 3) == 3


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_to_one_device(name):
    """A tensor that a model makes on the CPU would fail beside tensors on meta."""
    setup = replace(DRY_RUN, device="meta")
    outputs = trajectory(setup, name, FLOAT, 0).outputs(model_of(setup, name, FLOAT))
    assert {output.device.type for output in outputs} == {"meta"}


STUCK = """
import time
from pathlib import Path
from bench.gpu import runner

def waits_forever():
    time.sleep(60)

runner.ITEM_SECONDS = 0.5
with runner.ended_if_stuck(Path({file!r})):
    waits_forever()
"""


def test_a_stuck_item_ends_the_process_and_shows_where(tmp_path):
    file = tmp_path / "stacks.txt"
    command = [sys.executable, "-c", STUCK.format(file=str(file))]
    done = subprocess.run(command, timeout=50, check=False)
    assert done.returncode == 1
    assert "waits_forever" in file.read_text("utf-8")
