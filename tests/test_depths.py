"""Tests that rounds at different depths of the stack avoid the ends of its blocks."""

import inspect
import resource
from collections.abc import Callable

import pytest

from fxcache.depths import at_depth

CALLS, ROUNDS = 500, 14
SMALL_FRAMES = 150  # more than a block of the stack has room for


def page_faults() -> int:
    """Return the page faults of many short calls: one each if each call begins a block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        nothing()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def nothing() -> None:
    """Return at once."""


# Its frame is larger than those of ``deeper``, so that one of these stands just before each end.
nothing.__code__ = nothing.__code__.replace(co_stacksize=32)


def slow_rounds(rounds: int) -> list[int]:
    """Return how many of these rounds are slow, from each place in a block of the stack."""

    def count() -> int:
        return sum(at_depth(index, rounds, page_faults) >= CALLS for index in range(rounds))

    return [deeper(frames, count) for frames in range(SMALL_FRAMES)]


def deeper(frames: int, run: Callable[[], int]) -> int:
    """Call ``run`` below this number of small frames."""
    return deeper(frames - 1, run) if frames else run()


def test_few_rounds_stand_at_the_end_of_a_block():
    if not any(slow_rounds(1)):
        pytest.skip("this version of Python keeps a block for the next call")
    assert max(slow_rounds(ROUNDS)) <= ROUNDS // 3


def test_rounds_begin_at_depths_across_a_block():
    found = [at_depth(index, 4, lambda: len(inspect.stack(0))) for index in range(4)]
    assert [each - found[0] for each in found] == [0, 4, 8, 12]
