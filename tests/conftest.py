"""Shared set-up: one thread, nothing from the network, Dynamo clean for each test that compiles."""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

# Without a GPU, kernels run in Triton's interpreter, which is asked for before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tensors here are tiny, and threads that wait for each other lose to any other load.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """Spares each collection of garbage the libraries: half a million objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def clean_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
