"""fxcache as a cache backend of a server.

The class has the methods of ``CacheBackend`` in vLLM-Omni, as its documentation describes them:
``enable(pipeline)`` once, ``refresh(pipeline, num_inference_steps, verbose)`` before each
generation, and ``is_enabled()``. The server then calls ``pipeline.forward`` for the generation, and
no method of the backend after it. It imports nothing of that server.
"""

from collections.abc import Callable, Mapping
from functools import wraps
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
        self._own_forward: Callable[..., Any] | None = None  # set on the pipeline by somebody else

    def enable(self, pipeline: Any) -> None:
        """Optimise the denoisers of ``pipeline``, and end a generation when ``forward`` returns.

        Args:
            pipeline: An object with the denoisers as attributes, such as ``transformer`` and
                ``transformer_2``, and a method ``forward`` that makes a generation.

        Raises:
            ConfigError: It has none, or an option is wrong.
        """
        for denoiser in denoisers_in(pipeline):
            optimize(denoiser, **self.config)
        if not self.enabled:
            self._own_forward = vars(pipeline).get("forward")
            pipeline.forward = self._ending(pipeline.forward)
        self.enabled = True

    def refresh(self, pipeline: object, num_inference_steps: int, verbose: bool = True) -> None:
        """Begin a generation, and end the last one if its ``forward`` never ran.

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

    def disable(self, pipeline: Any) -> None:
        """Restore ``pipeline`` and its denoisers."""
        self._end()
        for denoiser in denoisers_in(pipeline):
            restore(denoiser)
        del pipeline.forward
        if self._own_forward:
            pipeline.forward = self._own_forward
        self.enabled = False

    def _ending(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``generate``, which then also ends the generation and frees what it cached."""

        @wraps(generate)
        def forward(*args: Any, **kwargs: Any) -> Any:
            try:
                return generate(*args, **kwargs)
            finally:
                self._end()

        return forward

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
        unwrapped(module, "fxcache.adapters")
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
