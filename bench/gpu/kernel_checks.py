"""Compares every kernel with its reference on the device.

First, the tests of each kernel run in a separate process, so that a kernel that breaks the device
breaks only that process. Then each call at a real size is compared with float64. Outputs hold NaN
before the kernel writes them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import torch
from torch import Tensor

from bench.gpu.environment import ROOT
from bench.gpu.items import Item, require
from bench.gpu.kernel_cases import FOLDERS, Case, cases
from bench.gpu.kernel_times import leaves
from bench.gpu.setup import Setup
from fxcache.kernels.launches import identity
from tests.kernels.comparing import K, poisoned_memory

COUNTS = ("tests", "failures", "errors", "skipped")
ROUNDING_STEPS = {torch.float32: 8}  # in units of eps / 2; 1 for other dtypes


def items(setup: Setup) -> Iterator[Item]:
    for name in FOLDERS:
        yield Item(f"{name}: tests", partial(run_tests, setup, name))
    for case in cases(setup):
        yield Item(case.name, partial(compare, case))


def run_tests(setup: Setup, name: str) -> dict[str, Any]:
    """Run ``tests/kernels/test_<name>.py``. Return the counts of tests, all of which must pass."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-q", f"tests/kernels/test_{name}.py"),
            *("-p", "no:cacheprovider", "-W", "default", f"--junitxml={report}"),
            *setup.kernel_tests,
        ]
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        require(report.exists(), "pytest wrote its report", {"output": tail(done)})
        suite = next(ElementTree.parse(report).iter("testsuite"))  # noqa: S314
    found = {count: int(suite.attrib[count]) for count in COUNTS}
    passed = found["tests"] > 0 and done.returncode == 0
    require(passed, "all tests of the kernel pass", {**found, "output": tail(done)})
    return found


def tail(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the end of the output, where pytest lists failures."""
    return (done.stdout + done.stderr)[-8000:]


def compare(case: Case) -> dict[str, Any]:
    """Return the errors of the kernel and of PyTorch against float64, for each output."""
    inputs = case.inputs()
    with poisoned_memory():
        computed = leaves(case.examples.run(identity, *inputs))
    own = leaves(case.examples.eager(*inputs))
    # References call this method to compute in float32.
    with patch.object(Tensor, "float", Tensor.double):
        exact = leaves(case.examples.eager(*in_float64(inputs)))
    outputs = [agreement(*output) for output in zip(computed, own, exact, strict=True)]
    for output in outputs:
        require(output["error"] <= output["allowed"], "the kernel is as exact as PyTorch", output)
    return {"outputs": outputs}


def agreement(computed: Tensor, own: Tensor, exact: Tensor) -> dict[str, float]:
    """Return the error of one output, and the greatest error that is allowed.

    The error of a floating-point result is its distance from float64. It may be ``K`` times the
    error of PyTorch, or a rounding error. The error of an eight-bit result is the distance from the
    codes of PyTorch. It may be 1.
    """
    require(computed.shape == own.shape, "the shapes are equal", {"shapes": computed.shape})
    if computed.element_size() == 1:
        codes = [x.view(torch.int8).int() for x in (computed, own)]
        return {"error": float((codes[0] - codes[1]).abs().max()), "allowed": 1.0}
    error, eager = (float((x.double() - exact).norm()) for x in (computed, own))
    eps = torch.finfo(computed.dtype).eps
    rounding = ROUNDING_STEPS.get(computed.dtype, 1) * eps / 2 * float(exact.norm())
    return {"error": error, "eager_error": eager, "allowed": K * max(eager, rounding)}


def in_float64(values: Any) -> Any:
    """Convert float32, float16 and bfloat16 tensors in the arguments to float64."""
    if isinstance(values, list | tuple):
        return type(values)(in_float64(value) for value in values)
    floats = isinstance(values, Tensor) and values.is_floating_point() and values.element_size() > 1
    return values.double() if floats else values
