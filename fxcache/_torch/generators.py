"""Access to torch's default generator, through which every setter of seeds goes."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

SETTERS = ("manual_seed", "seed", "set_state")
# The modules of the functions that set seeds, and of what wraps them.
PASSED = ("torch.random", "contextlib", "torch._compile", "torch._dynamo.eval_frame")


@contextlib.contextmanager
def seeds_refused(refuse: Callable[[], NoReturn]) -> Iterator[None]:
    """Call ``refuse`` where this thread sets the state of the default generator inside the block.

    torch and fxcache may set it, as they do around what they run.

    Why: no hook tells of ``torch.manual_seed``, ``set_rng_state`` and ``fork_rng``, and models
    import them under many names. All of them read the generator in ``torch.random``.
    """
    places: Any = (torch.random, torch)
    before = torch.default_generator
    guarded = GuardedGenerator(before, refuse)
    for place in places:
        place.default_generator = guarded
    try:
        yield
    finally:
        for place in places:
            if place.default_generator is guarded:
                place.default_generator = before


class GuardedGenerator:
    """A generator whose state the thread that made this object cannot set."""

    def __init__(self, generator: Any, refuse: Callable[[], NoReturn]) -> None:
        self._generator, self._refuse = generator, refuse
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name in SETTERS and threading.get_ident() == self._thread and called_by_model():
            self._refuse()
        return getattr(self._generator, name)


def called_by_model() -> bool:
    """Return whether neither torch nor fxcache calls the functions that set the state."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__") in PASSED:
        frame = frame.f_back
    return not str(frame.f_globals.get("__name__")).startswith(("torch.", "fxcache."))
