"""Tests that rounds at different depths of the stack avoid the ends of its blocks."""

import inspect
import resource

import pytest

from fxcache.depths import FRAMES_OF_A_BLOCK, at_depth, below

CALLS, ROUNDS = 500, 14


def page_faults() -> int:
    """Return the page faults of many short calls: one each if each call begins a block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        nothing()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def nothing() -> None:
    """Return at once."""


def slow_rounds(rounds: int) -> list[int]:
    """Return how many of these rounds are slow, below each number of frames."""

    def count() -> int:
        return sum(at_depth(index, rounds, page_faults) >= CALLS for index in range(rounds))

    return [below(frames, count) for frames in range(2 * FRAMES_OF_A_BLOCK)]


def test_few_rounds_stand_at_the_end_of_a_block():
    if not any(slow_rounds(1)):
        pytest.skip("this version of Python keeps a block for the next call")
    assert max(slow_rounds(ROUNDS)) <= ROUNDS // 3


def test_rounds_begin_at_depths_across_a_block():
    found = [at_depth(index, 4, lambda: len(inspect.stack(0))) for index in range(4)]
    assert [each - found[0] for each in found] == [0, 32, 64, 96]
