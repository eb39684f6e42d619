"""Rounds of a measurement at different depths of Python's stack.

Python's stack grows by blocks. Up to Python 3.12, each call that begins a block allocates it, and
its return frees it (python/cpython#142183). If a function that calls operators stands at the end of
a block, each of these calls does so, and a step of a small model takes up to twice its time. One
frame more or less anywhere above, as in the script that measures, moves the ends of the blocks.
Rounds at different depths leave few of them at such a place, so that their median does not show it.
"""

from collections.abc import Callable
from typing import TypeVar

FRAMES_OF_A_BLOCK = 16  # of ``below``, in 16 KiB
SLOTS = 116  # of values in such a frame, which has twelve slots besides them

T = TypeVar("T")


def at_depth(index: int, rounds: int, run: Callable[[], T]) -> T:
    """Call ``run`` at the depth of one round.

    Args:
        index: The index of the round.
        rounds: The number of rounds, whose depths together cover one block of the stack.
        run: What to call.
    """
    return below(index * FRAMES_OF_A_BLOCK // rounds, run)


def below(frames: int, run: Callable[[], T]) -> T:
    """Call ``run`` below this number of frames."""
    return below(frames - 1, run) if frames else run()


# Few large frames take as much of the stack as many small ones, and the way up to the caller, which
# fxcache may walk in each call, is shorter.
below.__code__ = below.__code__.replace(co_stacksize=SLOTS)
