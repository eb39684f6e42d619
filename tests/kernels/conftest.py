"""Kernels run on a GPU where there is one, and in Triton's interpreter where there is none."""

import pytest
import torch

from tests.kernels.comparing import poisoned_memory


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def poisoned():
    """What a kernel does not write is seen."""
    with poisoned_memory():
        yield
