"""Access to the values of parametrised weights that torch keeps for a while."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def parametrizations_computed() -> Iterator[None]:
    """Compute parametrised weights inside the block, although ``parametrize.cached()`` is active.

    Why: a trace would take a kept value for a constant, or leave a fake tensor to be kept. There is
    no public way to leave a block of ``cached`` for a while.
    """
    state: Any = sys.modules.get("torch.nn.utils.parametrize")
    if state is None:  # nothing is parametrised, and the import takes time
        yield
        return
    values, active = state._cache, state._cache_enabled
    state._cache, state._cache_enabled = {}, 0
    try:
        yield
    finally:
        state._cache_enabled += active  # other threads may have entered or left a block
        state._cache = values if state._cache_enabled else {}
