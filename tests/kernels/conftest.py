"""Kernels run on a GPU where there is one, and in Triton's interpreter where there is none."""

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
