"""fxcache as a cache backend of a server.

The class has the methods of ``CacheBackend`` in vLLM-Omni, as its documentation describes them:
``enable(pipeline)`` once, ``refresh(pipeline, num_inference_steps, verbose)`` before each
generation, and ``is_enabled()``. It imports nothing of that server.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxcache.api import optimize, restore, session
from fxcache.errors import ConfigError, StateError
from fxcache.runtime.denoisers import DENOISERS, is_denoiser
from fxcache.runtime.module import unwrapped
from fxcache.runtime.session import Session


class CacheBackend:
    """Optimises the denoisers of a server's pipeline, and delimits its generations.

    Generations follow one another in one thread, as in that server without step batching. For
    requests that take turns, use ``fxcache.session(key=...)`` or ``fxcache.serving``.

    Args:
        config: The arguments of ``fxcache.optimize`` by name, such as ``policy`` and ``cut``.

    Attributes:
        config: The same.
        enabled: Whether a pipeline is optimised.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config, self.enabled = dict(config or {}), False
        self._open: list[Session] = []

    def enable(self, pipeline: object) -> None:
        """Optimise the denoisers of ``pipeline``.

        Args:
            pipeline: An object with the denoisers as attributes, such as ``transformer`` and
                ``transformer_2``.

        Raises:
            ConfigError: It has none, or an option is wrong.
        """
        for denoiser in denoisers_in(pipeline):
            optimize(denoiser, **self.config)
        self.enabled = True

    def refresh(self, pipeline: object, num_inference_steps: int, verbose: bool = True) -> None:
        """Begin a generation: drop what the last one cached.

        Args:
            pipeline: The pipeline of ``enable``.
            num_inference_steps: How many steps the generation makes.
            verbose: Ignored: the report tells more, ``fxcache.report(pipeline.transformer)``.

        Raises:
            StateError: The backend is not enabled.
        """
        del verbose
        if not self.enabled:
            raise StateError(
                "the backend is not enabled",
                where="CacheBackend.refresh",
                remedy="call enable(pipeline) first",
            )
        self._end()
        for denoiser in denoisers_in(pipeline):
            opened = session(denoiser, num_steps=num_inference_steps)
            self._open.append(opened.__enter__())

    def is_enabled(self) -> bool:
        """Return whether a pipeline is optimised."""
        return self.enabled

    def disable(self, pipeline: object) -> None:
        """Restore the denoisers of ``pipeline``."""
        self._end()
        for denoiser in denoisers_in(pipeline):
            restore(denoiser)
        self.enabled = False

    def _end(self) -> None:
        """End the last generation."""
        while self._open:
            self._open.pop().__exit__(None, None, None)


def denoisers_in(pipeline: object) -> list[nn.Module]:
    """Return the denoisers among the attributes of ``pipeline``, without their wrappers.

    Raises:
        ConfigError: There are none.
    """
    modules = dict(pipeline.named_children()) if isinstance(pipeline, nn.Module) else {}
    modules |= {k: v for k, v in vars(pipeline).items() if isinstance(v, nn.Module)}
    found = [
        unwrapped(module)
        for name, module in modules.items()
        if not set(name.split("_")).isdisjoint(DENOISERS) and is_denoiser(name, module)
    ]
    if not found:
        raise ConfigError(
            f"{type(pipeline).__name__} has no denoiser among {', '.join(modules) or 'nothing'}",
            where="CacheBackend.enable",
            remedy="pass an object with a module named transformer or unet",
        )
    return found
