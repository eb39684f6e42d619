"""Lets many threads call one pipeline at once: their steps share calls of the denoiser."""

import copy
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from torch import nn

from fxcache.errors import ConfigError
from fxcache.runtime.denoisers import denoisers_of
from fxcache.runtime.pipeline import detach_pipeline
from fxcache.serving.batcher import Batcher
from fxcache.serving.steps import WHERE, Steps
from fxcache.signature import Signature


class BatchedPipeline:
    """A pipeline of diffusers that serves many calls at once.

    Each call runs in the caller's thread, with its own noise scheduler. The steps of all calls go
    through one ``Batcher``. Everything else is done by one thread at a time, because tokenizers and
    some decoders keep state during a call: callbacks must not wait for another call.

    Use it in a ``with`` block, which runs the batcher's thread.

    Args:
        pipeline: A pipeline with one denoiser. It stays as it is.
        denoiser: An optimised model or a loaded artifact in place of the pipeline's denoiser. By
            default that one, which must be optimised. ``rows_of`` finds the inputs to name in
            ``CaptureConfig(dynamic=...)``.
        options: The options of ``Batcher``.

    Attributes:
        batcher: The batcher.

    Raises:
        ConfigError: The pipeline has several denoisers or moves its modules between devices, or an
            option is wrong.
        StateError: The denoiser is not optimised.
    """

    def __init__(self, pipeline: Any, denoiser: nn.Module | None = None, **options: Any) -> None:
        require_resident(pipeline)
        self._pipeline = pipeline
        self._name, own = only_denoiser(pipeline)
        self._denoiser = own if denoiser is None else denoiser
        self.batcher = Batcher(self._denoiser, **options)
        self._turn = threading.Lock()

    def __call__(
        self, *args: Any, before_step: Callable[[], None] | None = None, **kwargs: Any
    ) -> Any:
        """Call the pipeline. Several threads may do so at once.

        Args:
            *args: The arguments of the pipeline.
            before_step: Is called before each call of the denoiser. An error that it raises ends
                this call of the pipeline, and no other.
            **kwargs: The keyword arguments of the pipeline.

        Returns:
            What the pipeline returns.
        """
        with self._turn:
            own = copy.copy(self._pipeline)
            detach_pipeline(own)
            for name, component in self._pipeline.components.items():
                if hasattr(component, "set_timesteps"):
                    setattr(own, name, copy.deepcopy(component))
            steps = Steps(self._denoiser, self.batcher, own.scheduler, self._turn)
            steps.before_step = before_step
            vars(own)[self._name] = steps
            with closing(steps):
                return own(*args, **kwargs)

    def __enter__(self) -> "BatchedPipeline":
        self.batcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.batcher.__exit__(*error)


def require_resident(pipeline: Any) -> None:
    """Raise ConfigError if the pipeline moves its modules away at the end of each call."""
    if getattr(pipeline, "_all_hooks", None):
        raise ConfigError(
            f"{type(pipeline).__name__} moves its modules between devices, while other calls run",
            where=WHERE,
            remedy="leave out enable_model_cpu_offload",
        )


def only_denoiser(pipeline: Any) -> tuple[str, nn.Module]:
    """Return the name and the module of the pipeline's denoiser; ConfigError if it has several."""
    found = denoisers_of(pipeline)
    if len(found) > 1:
        raise ConfigError(
            f"{type(pipeline).__name__} has several denoisers: {', '.join(found)}",
            where=WHERE,
            remedy="use a Batcher for each of them in a loop of your own",
        )
    ((name, denoiser),) = found.items()
    return name, denoiser


class _FirstCallError(Exception):
    """Ends a pipeline at the first call of its denoiser."""


def rows_of(pipeline: Any, *args: Any, **kwargs: Any) -> dict[str, tuple[int, ...]]:
    """Return the inputs of the denoiser that have a row for each picture.

    The result is what ``CaptureConfig(dynamic=...)`` takes. The pipeline runs until it first calls
    its denoiser. Pass three prompts or more: an input whose first dimension has another size than
    that of the latent has no rows, and other sizes could be equal by chance.

    Args:
        pipeline: A pipeline with one denoiser.
        *args: The arguments of a call of the pipeline.
        **kwargs: Its keyword arguments.

    Raises:
        ConfigError: The pipeline has several denoisers, or never calls it.
    """
    _, denoiser = only_denoiser(pipeline)
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise _FirstCallError

    handle = denoiser.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        pipeline(*args, **kwargs)
    except _FirstCallError:
        pass
    finally:
        handle.remove()
    if not seen:
        raise ConfigError(
            "the pipeline did not call its denoiser", where=WHERE, remedy="pass a call that draws"
        )
    ((args, kwargs),) = seen
    call = Signature(type(denoiser)).call(args, kwargs)
    rows = len(call.latent)
    found = [path for path, t in call.by_path().items() if t.dim() and len(t) == rows]
    return dict.fromkeys([*found, *filter(None, [call.timestep_name])], (0,))
