"""Kernels run on a GPU where there is one, and in Triton's interpreter where there is none."""

from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that is given out is full of NaN, or 77: what a kernel does not write is seen."""

    def full(make: Any) -> Any:
        def poisoned(*args: Any, **kwargs: Any) -> Tensor:
            given: Tensor = make(*args, **kwargs)
            return given.fill_(float("nan") if given.is_floating_point() else 77)

        return poisoned

    made = ((Tensor, "new_empty"), (Tensor, "new_empty_strided"), (torch, "empty_like"))
    for owner, name in made:
        monkeypatch.setattr(owner, name, full(getattr(owner, name)))
