"""What a gate measures: optimised denoisers, and a run of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxcache.runtime.engine import Engine
from fxcache.runtime.module import detach, install
from fxcache.runtime.pipeline import attach_pipeline, detach_pipeline, require_engine


@dataclass(frozen=True)
class Subject:
    """Optimised denoisers, and a function that runs all of their steps.

    Attributes:
        denoisers: The optimised denoisers, by name.
        run: Makes one run from fixed seeds, and returns its result: a tensor, or images.
        pipeline: The optimised pipeline with these components; None for a denoiser alone.
    """

    denoisers: Mapping[str, nn.Module]
    run: Callable[[], Any]
    pipeline: Any = None

    @property
    def engines(self) -> dict[str, Engine]:
        """The current engine of each denoiser, by name."""
        return {name: require_engine(m, "fxcache gate") for name, m in self.denoisers.items()}

    @property
    def device(self) -> str:
        """The type of device of the first denoiser."""
        return next(next(iter(self.denoisers.values())).parameters()).device.type

    @contextmanager
    def fresh(self) -> Iterator[dict[str, Engine]]:
        """Let new engines with the same settings run inside the block. Yields them by name."""
        kept = self.engines
        made = {name: Engine(e.signature.original, e.settings) for name, e in kept.items()}
        for name, engine in made.items():
            install(self.denoisers[name], engine)
        try:
            yield made
        finally:
            for name, engine in kept.items():
                install(self.denoisers[name], engine)

    @contextmanager
    def original(self) -> Iterator[None]:
        """Undo ``fxcache.optimize`` inside the block. The engines keep their captures."""
        with ExitStack() as put_back:
            for name, engine in self.engines.items():
                detach(self.denoisers[name])
                put_back.callback(install, self.denoisers[name], engine)
            if self.pipeline is not None:
                detach_pipeline(self.pipeline)
                put_back.callback(attach_pipeline, self.pipeline, self.denoisers)
            yield
