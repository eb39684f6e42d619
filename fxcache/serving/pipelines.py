"""Lets many threads call one pipeline at once: their steps share calls of the denoiser."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.errors import ConfigError
from fxcache.runtime.denoisers import denoisers_of
from fxcache.runtime.pipeline import detach_pipeline, place_of, require_engine
from fxcache.runtime.trajectory.position import Place
from fxcache.serving.batcher import Batcher
from fxcache.serving.request import Request
from fxcache.signature import Signature

WHERE = "fxcache.serving.BatchedPipeline"


class BatchedPipeline:
    """A pipeline of diffusers that serves many calls at once.

    Each call runs in the caller's thread, with its own noise scheduler. The steps of all calls go
    through one ``Batcher``. Text encoders and decoders run as in the pipeline, call by call.

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
        ConfigError: The pipeline has several denoisers, or an option is wrong.
        StateError: The denoiser is not optimised.
    """

    def __init__(self, pipeline: Any, denoiser: nn.Module | None = None, **options: Any) -> None:
        self._pipeline = pipeline
        self._name, own = only_denoiser(pipeline)
        self._denoiser = own if denoiser is None else denoiser
        self.batcher = Batcher(self._denoiser, **options)

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
        own = copy.copy(self._pipeline)
        detach_pipeline(own)
        own.scheduler = copy.deepcopy(own.scheduler)
        with Steps(self._denoiser, self.batcher, own.scheduler, before_step) as steps:
            vars(own)[self._name] = steps
            return own(*args, **kwargs)

    def __enter__(self) -> "BatchedPipeline":
        self.batcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.batcher.__exit__(*error)


class Steps(nn.Module):
    """Stands for the denoiser in one call of a pipeline: its calls are steps of requests.

    A guided pipeline may call its denoiser several times a step, with other prompts. Calls with
    equal conditioning in different steps are one request.

    Args:
        denoiser: The denoiser, whose attributes this module has too.
        batcher: Runs the steps.
        scheduler: The noise scheduler of the call, which counts its steps.
        before_step: Is called before each step.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        batcher: Batcher,
        scheduler: Any,
        before_step: Callable[[], None] | None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._batcher, self._scheduler, self._before_step = batcher, scheduler, before_step
        self._signature = require_engine(denoiser, WHERE).signature
        self._runs: list[Run] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("denoiser"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the next step of the request with this conditioning."""
        if self._before_step:
            self._before_step()
        conditioning = self._signature.call(args, kwargs).conditioning
        run = self._run(conditioning, place_of(self._scheduler))
        return run.request(*args, **kwargs)

    def _run(self, conditioning: tuple[Tensor, ...], place: Place | None) -> "Run":
        """Return the run with this conditioning whose step at ``place`` is still missing."""
        for run in self._runs:
            if (place is None or run.place != place) and same_values(
                run.conditioning, conditioning
            ):
                run.place = place
                return run
        steps = len(self._scheduler.timesteps) if place is None else steps_left(place)
        self._runs.append(Run(conditioning, self._batcher.start(steps), place))
        return self._runs[-1]

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            run.request.close()


@dataclass
class Run:
    """The steps with one conditioning.

    Attributes:
        conditioning: The conditioning.
        request: Their request.
        place: The place of the last step; None if the scheduler does not count.
    """

    conditioning: tuple[Tensor, ...]
    request: Request
    place: Place | None


def steps_left(place: Place) -> int:
    """Return how many steps begin at ``place`` or later."""
    return (place.length or 0) - place.offset


def same_values(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Return whether two calls have the same conditioning."""
    return len(some) == len(others) and all(
        one is other or (one.shape == other.shape and torch.equal(one, other))
        for one, other in zip(some, others, strict=True)
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
