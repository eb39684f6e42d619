"""Tests that our operators pass PyTorch's checks: their schemas, and their results' shapes."""

from typing import Any

import pytest

from tests.kernels.comparing import from_compiling
from tests.kernels.test_binaries import FOLDERS


@pytest.fixture(scope="module")
def errors() -> Any:
    """Check all in one other process, because kernels may be interpreted in this one."""
    return from_compiling("tests.kernels.opchecks")


@pytest.mark.parametrize("kernel", FOLDERS)
def test_the_operators_of_each_kernel_pass_pytorchs_checks(errors, kernel):
    assert errors[kernel] == ""
