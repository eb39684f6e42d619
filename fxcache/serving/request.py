"""A request: one run of the model, whose steps may share calls with those of other requests."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from fxcache.call import Call
from fxcache.errors import StateError
from fxcache.policies import Policy
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.step import Step


@dataclass(slots=True, eq=False)
class Trajectory:
    """The state of a request between its steps.

    Attributes:
        policy: Decides which steps refresh.
        num_steps: How many steps the request makes.
        index: The number of steps that succeeded.
        last_refresh: The index of the last step that refreshed everything.
        changes: The changes of the signal since then.
        reference: The earlier value of the signal, for the next change.
        cache: The cached values of its rows.
        source: Identifies the capture and the weights that they come from.
        refreshes: The indices of all steps that refreshed everything.
    """

    policy: Policy
    num_steps: int
    index: int = 0
    last_refresh: int = 0
    changes: tuple[float, ...] = ()
    reference: Tensor | None = None
    cache: FeatureCache = field(default_factory=FeatureCache)
    source: object = None
    refreshes: list[int] = field(default_factory=list)

    def step(self, changes: tuple[float, ...]) -> Step:
        """Return the next step as a policy sees it."""
        return Step(self.index, self.num_steps, self.last_refresh, changes)

    def advance(self, refreshed: bool, changes: tuple[float, ...]) -> None:
        """Record that the next step succeeded.

        Args:
            refreshed: Whether it refreshed everything.
            changes: The changes of the signal that the next step sees.
        """
        if refreshed:
            self.last_refresh = self.index
            self.refreshes.append(self.index)
        self.changes = changes
        self.index += 1

    def free(self) -> None:
        """Free the cached values."""
        self.cache, self.reference, self.source = FeatureCache(), None, None


@dataclass(slots=True, eq=False)
class Pending:
    """A step that waits for its call.

    Attributes:
        trajectory: The state of its request.
        call: The call as the caller made it, with one timestep for each row.
        future: Receives the result.
        arrived: The time of ``time.monotonic()`` since which it waits.
        rounds: For how many rounds it was held back.
        stream: The caller's CUDA stream, if it is not the default one.
    """

    trajectory: Trajectory
    call: Call
    future: "Future[Any]"
    arrived: float = field(default_factory=time.monotonic)
    rounds: int = 0
    stream: Any = None

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return len(self.call.latent)

    @property
    def starts(self) -> bool:
        """Whether it is the first step of its request."""
        return self.trajectory.index == 0


class Owner(Protocol):
    """What a request needs of its batcher."""

    def submit(
        self, request: "Request", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "Future[Any]": ...

    def result(self, future: "Future[Any]") -> Any: ...

    def forget(self, request: "Request") -> None: ...


class Request:
    """One run of the model. Call it as the model, once a step.

    Make it with ``Batcher.start``. A request belongs to one caller: its steps follow one another.
    Leave the ``with`` block, or call ``close``, when the run ends.

    Attributes:
        trajectory: The state between the steps.
    """

    def __init__(self, trajectory: Trajectory, owner: Owner) -> None:
        self.trajectory, self._owner = trajectory, owner
        self._last: Future[Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the next step, and wait for its result.

        Args:
            *args: The arguments of the model.
            **kwargs: The keyword arguments of the model.

        Returns:
            What the model returns for these arguments.

        Raises:
            StateError: The batcher is closed, or the request has made all its steps.
            CancelledError: The batcher or the request was closed meanwhile.
            FxcacheError: As for a call of the optimised model.
        """
        return self._owner.result(self.submit(*args, **kwargs))

    def submit(self, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Begin the next step, and return a future of its result.

        A cancelled step does not count: the same step may be submitted again.

        Raises:
            StateError: The step before is not done, and as for calls.
        """
        if self._last is not None and not self._last.done():
            raise StateError(
                "the step before has not ended",
                where="Request.submit",
                remedy="wait for the result of each step before the next one",
            )
        self._last = self._owner.submit(self, args, kwargs)
        return self._last

    @property
    def refreshes(self) -> list[int]:
        """The indices of the steps that refreshed everything."""
        return list(self.trajectory.refreshes)

    @property
    def cached_bytes(self) -> int:
        """The bytes of its cached values."""
        return self.trajectory.cache.nbytes

    def close(self) -> None:
        """End the request, and free its cached values. A step that waits is cancelled."""
        if self._last is not None:
            self._last.cancel()
        self._owner.forget(self)
        self.trajectory.free()

    def __enter__(self) -> "Request":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
