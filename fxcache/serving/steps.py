"""Stands for the denoiser of a pipeline: each of its calls is a step of a request."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import version_of
from fxcache.call import Call
from fxcache.program import Role
from fxcache.runtime.pipeline import require_engine
from fxcache.runtime.schedule import Schedule
from fxcache.runtime.trajectory.inputs import kinds_of
from fxcache.runtime.trajectory.position import PLACES, position_of
from fxcache.serving.batcher import Batcher
from fxcache.serving.request import Request

WHERE = "fxcache.serving.BatchedPipeline"


class Steps(nn.Module):
    """The denoiser in one call of a pipeline.

    A guided pipeline may call its denoiser several times a step, with other prompts. Each prompt is
    a request of its own. A request goes on only with a call at the next step that has the same
    prompt. Any other call begins a request, whose first step refreshes: after a step without this
    prompt, with changed embeddings, or when the schedule starts over.

    Args:
        denoiser: The denoiser, whose attributes this module has too.
        batcher: Runs the steps.
        scheduler: The noise scheduler of the call, which counts its steps.
        turn: The lock that the caller holds. It is free while a step waits for its result.

    Attributes:
        before_step: Is called before each step, unless it is None.
    """

    def __init__(
        self, denoiser: nn.Module, batcher: Batcher, scheduler: Any, turn: threading.Lock
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.before_step: Callable[[], None] | None = None
        self._batcher, self._scheduler, self._turn = batcher, scheduler, turn
        engine = require_engine(denoiser, WHERE)
        self._signature, self._step_inputs = engine.signature, engine.settings.capture.step_inputs
        self._runs: list[Run] = []
        self._offset: int | None = None  # of the last step
        self._timestep: Any = None  # of the last step

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("denoiser"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Make the next step of the request that this call belongs to."""
        if self.before_step:
            self.before_step()
        run = self._run(self._signature.call(args, kwargs))
        self._turn.release()
        try:
            return run.request(*args, **kwargs)
        finally:
            self._turn.acquire()

    def close(self) -> None:
        """End all requests."""
        self._keep([])

    def _run(self, call: Call) -> "Run":
        """Return the run that ``call`` continues, or begin one."""
        offset, length = self._place(call.timestep)
        if offset != self._offset:
            next_step = None not in (offset, self._offset) and offset == (self._offset or 0) + 1
            self._keep([r for r in self._runs if next_step and r.offset == self._offset])
        self._offset, self._timestep = offset, call.timestep
        prompt = prompt_of(call, self._step_inputs)
        for run in self._runs:
            if run.continues_at(offset) and run.has(prompt):
                break
        else:
            run = Run(prompt, self._batcher.start(length), length)
            self._runs.append(run)
        run.offset, run.left = offset, run.left - 1
        return run

    def _place(self, timestep: Any) -> tuple[int | None, int]:
        """Return the index of a step, None if it is unknown, and how many steps are left."""
        place = position_of(timestep, Schedule(self._scheduler).place())
        if not isinstance(place, PLACES) or place.length is None:
            return None, max(1, len(self._scheduler.timesteps))
        stands_still = place.offset == self._offset and not same(timestep, self._timestep)
        return None if stands_still else place.offset, place.length - place.offset

    def _keep(self, runs: "list[Run]") -> None:
        """Close all runs except these."""
        for run in self._runs:
            if run not in runs:
                run.request.close()
        self._runs = runs


Version = tuple[Tensor, int]  # a tensor, and how often it was written in place


@dataclass(eq=False)
class Run:
    """The steps with one prompt.

    Attributes:
        prompt: The tensors of the prompt.
        request: The request.
        left: How many steps it can still make.
        offset: The index of its last step; None if it is unknown.
    """

    prompt: list[Version]
    request: Request
    left: int
    offset: int | None = None

    def continues_at(self, offset: int | None) -> bool:
        """Return whether the run can make the step ``offset``, and has not made it yet."""
        return self.left > 0 and (offset is None or self.offset != offset)

    def has(self, prompt: Sequence[Version]) -> bool:
        """Return whether a call has the same prompt, which was not written since."""
        return len(prompt) == len(self.prompt) and all(
            version == known_version if tensor is known else same(tensor, known)
            for (tensor, version), (known, known_version) in zip(prompt, self.prompt, strict=True)
        )


def prompt_of(call: Call, step_inputs: frozenset[str]) -> list[Version]:
    """Return the conditioning of a call, without inputs that belong to a step."""
    paths = [given.path for given in call.inputs() if given.role is Role.CONDITIONING]
    kept = kinds_of(paths, step_inputs).kept
    return [(call.conditioning[i], version_of(call.conditioning[i])) for i in sorted(kept)]


def same(one: Any, other: Any) -> bool:
    """Return whether two timesteps or tensors have the same values."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and torch.equal(one, other))
    return type(one) is type(other) and bool(one == other)
