"""What a gate measures: optimised denoisers, and a run of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import nn

from fxcache._torch import not_compiled
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
        settings: What the run depends on besides the denoisers, such as the seed and the steps.
    """

    denoisers: Mapping[str, nn.Module]
    run: Callable[[], Any]
    pipeline: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def engines(self) -> dict[str, Engine]:
        """The current engine of each denoiser, by name."""
        return {name: require_engine(m, "fxcache gate") for name, m in self.denoisers.items()}

    @property
    def device(self) -> torch.device:
        """The device of the first weight; the CPU if there is none."""
        modules = self.denoisers.values()
        weights = (w for m in modules for w in chain(m.parameters(), m.buffers()))
        first = next(weights, None)
        return torch.device("cpu") if first is None else first.device

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Let the calls of denoisers that the user compiled run in eager mode inside the block."""
        with ExitStack() as put_back:
            for module in self.denoisers.values():
                put_back.enter_context(not_compiled(module))
            yield

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
