"""Shared set-up: one thread, no network, and a clean Dynamo for each test that compiles."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

# Without a GPU, kernels run in Triton's interpreter, which is asked for before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tensors here are tiny, and threads that wait for each other lose to any other load.
torch.set_num_threads(1)
# A trace makes so many objects that Python would look for garbage thousands of times.
gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most cases of each sweep as slow, before pytest deselects by marks."""
    sweeps: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sweep"):
            sweeps.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in sweeps.values():
        marker = cases[0].get_closest_marker("sweep")
        assert marker is not None
        for index in set(range(len(cases))) - spread(len(cases), marker.args[0]):
            cases[index].add_marker("slow")


def spread(count: int, keep: int) -> set[int]:
    """Return ``keep`` indices below ``count``, evenly spread from the first."""
    return {index * count // keep for index in range(min(keep, count))}


@pytest.fixture(scope="session")
def captures() -> Any:
    from tests import shared

    return shared.Captures()


@pytest.fixture(scope="session")
def bindings() -> Any:
    from tests import shared

    return shared.Bindings()


@pytest.fixture
def shared_captures(captures: Any, bindings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture models of equal content once, for tests of behaviour after a capture."""
    for place in ("fxcache.runtime.captures.capture", "fxcache.planning.capture"):
        monkeypatch.setattr(place, captures)
    for name in ("trace_of", "number_tensors"):
        monkeypatch.setattr(f"fxcache.runtime.numbers.{name}", getattr(bindings, name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small pipeline."""
    from tests import tiny

    path = tmp_path_factory.mktemp("pipeline")
    tiny.pipeline().save_pretrained(path)
    return path


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """Exclude the half million objects of libraries from garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def clean_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
