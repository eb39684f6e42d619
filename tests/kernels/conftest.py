"""Runs kernels on a GPU if there is one, and in Triton's interpreter otherwise."""

import pytest
import torch

from tests.kernels.comparing import poisoned_memory


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def poisoned():
    """Let tests notice values that a kernel does not write."""
    with poisoned_memory():
        yield
