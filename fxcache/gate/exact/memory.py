"""The most bytes that the cache and hoisted values take during a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxcache.report.report import report_of
from fxcache.runtime.engine import Engine


@dataclass
class Peak:
    """The most bytes after any call so far.

    Attributes:
        cached_bytes: Bytes of cached values of all trajectories.
        hoisted_bytes: Bytes of values that were computed before the steps.
    """

    cached_bytes: int = 0
    hoisted_bytes: int = 0

    def update(self, module: nn.Module, engine: Engine) -> None:
        """Take the current bytes into account."""
        reported = report_of(module, engine)
        self.cached_bytes = max(self.cached_bytes, reported.cached_bytes)
        self.hoisted_bytes = max(self.hoisted_bytes, reported.hoisted_bytes)


@contextmanager
def peaks(
    denoisers: Mapping[str, nn.Module], engines: Mapping[str, Engine]
) -> Iterator[dict[str, Peak]]:
    """Yield the peak of each denoiser, which each call inside the block updates."""
    found = {name: Peak() for name in denoisers}

    def observe(name: str) -> Any:
        return lambda module, *_: found[name].update(module, engines[name])

    handles = [m.register_forward_hook(observe(name)) for name, m in denoisers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
