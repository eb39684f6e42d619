"""Compares kernels with float64. The bound is a multiple of the error of PyTorch's own result."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

K = 3  # times PyTorch's own error; the interpreter cuts bfloat16 off where hardware rounds
# Both half dtypes are converted by the same line of each kernel.
DTYPES = [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]


class Ran:
    """Records which kernels run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, kernel: Any) -> Any:
        self.names.append(kernel.__name__)
        return kernel


def assert_as_exact(found: Tensor, own: Tensor, exact: Tensor) -> None:
    """``found`` is ``K`` times as far from ``exact`` as PyTorch's ``own`` result, or nearer.

    That may be exact by luck, where there are few values: then as far as rounding goes, once in
    half precision. In float32 the last bit of a mean moves all values of its group, by some units.
    """
    assert (found.dtype, found.shape) == (own.dtype, own.shape)
    assert found.isfinite().all()
    error, allowed = (float((x.double() - exact).norm()) for x in (found, own))
    steps = 8 if own.dtype is torch.float32 else 1
    rounding = steps * torch.finfo(own.dtype).eps / 2 * float(exact.norm())
    assert error <= K * max(allowed, rounding), (error, allowed, rounding)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill new memory with NaN or 77, so that values which a kernel does not write are noticed."""

    def full(make: Any) -> Any:
        def poisoned(*args: Any, **kwargs: Any) -> Tensor:
            given: Tensor = make(*args, **kwargs)
            return given.fill_(float("nan") if given.is_floating_point() else 77)

        return poisoned

    with ExitStack() as stack:
        for owner, name in (
            (Tensor, "new_empty"),
            (Tensor, "new_empty_strided"),
            (torch, "empty_like"),
        ):
            stack.enter_context(patch.object(owner, name, full(getattr(owner, name))))
        yield


def compiling() -> dict[str, str]:
    """Return the environment of a process that compiles kernels; this one may interpret them."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def from_compiling(module: str) -> Any:
    """Run a module in another process, where kernels are compiled. Return the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module],
        cwd=Path(__file__).parents[2],
        env=compiling(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
