"""Tests that the memory of a process that goes on stays flat."""

from collections.abc import Callable
from typing import Any

import pytest

from bench import memory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:more than 8 kinds:fxcache.FxcacheWarning"),
    pytest.mark.filterwarnings("ignore:Adapter .* was active:UserWarning"),
]
FLAT = ("tensors", "tensor_bytes", "graph_modules")


@pytest.mark.parametrize(
    "work",
    [
        lambda: memory.pictures(20),
        lambda: memory.sizes(10, rounds=4),
        lambda: memory.switches(10),
    ],
    ids=["pictures", "sizes", "LoRA"],
)
def test_nothing_is_kept(work: Callable[[], list[dict[str, Any]]]) -> None:
    grown = memory.growth(work())
    assert {name: grown[name] for name in FLAT} == dict.fromkeys(FLAT, 0)
