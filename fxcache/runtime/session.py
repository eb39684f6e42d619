"""Sessions, with which users delimit the runs of their own sampling loops."""

from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor, nn

from fxcache.errors import ConfigError, StateError
from fxcache.program import STATE_KEY
from fxcache.runtime.trajectory.position import Place
from fxcache.runtime.trajectory.scope import AnyScope, KeyScope, Scope

open_sessions: ContextVar[tuple["Session", ...]] = ContextVar("fxcache_sessions", default=())


class PipelineCall(Protocol):
    """The part of a pipeline's call that a session uses."""

    def place(self) -> Place | None:
        """Return the place by the noise scheduler; None if it does not count its steps."""

    def loop_place(self) -> Place | None:
        """Return the place by the pipeline's loop; None if the loop does not tell it."""

    def end(self, module: nn.Module) -> int | None:
        """Return the place at which the calls of ``module`` end; None for that of the schedule."""


class Session:
    """One run of a sampling loop. All calls of the module inside its ``with`` block belong to it.

    ``fxcache.session`` makes it. It belongs to the thread or task that opens it.

    Attributes:
        module: The optimised module.
        num_steps: How many calls of each trajectory the run makes; None if that is unknown.
        pipeline_run: The call of a pipeline that opened it; None for a user's own session.
        scope: The scope of its calls.
    """

    def __init__(
        self,
        module: nn.Module,
        num_steps: int | None = None,
        key: Hashable = None,
        pipeline_run: PipelineCall | None = None,
    ):
        """Make a session that is not open yet.

        Args:
            module: The optimised module.
            num_steps: How many calls of each trajectory the run makes.
            key: The name of a request. Its trajectories outlive the block, so that requests that
                take turns can open a session once a step.
            pipeline_run: The call of a pipeline that opens it.
        """
        self.module, self.num_steps, self.pipeline_run = module, num_steps, pipeline_run
        self._key = key
        self.scope = self._new_scope()

    def _new_scope(self) -> AnyScope:
        return Scope(vouched=True) if self._key is None else KeyScope(self._key)

    def place(self, timestep: Any) -> Place | None:
        """Return the run's place in its schedule. None if only the timesteps tell it.

        Args:
            timestep: The timestep of the call; None if the model takes none.
        """
        run = self.pipeline_run
        if run is None:
            return None
        return run.place() or (run.loop_place() if timestep is None else None)

    def end(self) -> int | None:
        """Return the place in the schedule at which the module's calls end; None if unknown."""
        return self.pipeline_run.end(self.module) if self.pipeline_run else None

    def close(self, cut_short: bool = False) -> None:
        """End the run. Leaving the ``with`` block does this.

        The length of a run that was cut short says nothing about later ones. The cached values of
        a session without a key are freed. The next call of a pipeline takes over the buffers of
        its last one, and so does the next session of a compiled module.
        """
        if not isinstance(self.scope, Scope):
            return
        self.scope.closed, self.scope.cut_short = True, cut_short
        engine = vars(self.module).get(STATE_KEY)
        if engine is not None and self.pipeline_run is None:
            engine.store.release(self.scope)

    def __enter__(self) -> Self:
        outer = current_session(self.module)
        if outer is not None and outer.pipeline_run is None:
            raise StateError(
                "a session of this module is open already in this thread or task",
                where="with fxcache.session(...)",
                remedy="close it first; generators that take turns open a session(key=...) around "
                "each call, not around their yield",
            )
        self.scope = self._new_scope()
        open_sessions.set((*open_sessions.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        open_sessions.set(tuple(s for s in open_sessions.get() if s is not self))
        self.close(cut_short=kind is not None)


def current_session(module: nn.Module) -> Session | None:
    """Return the innermost open session of ``module`` in this thread or task."""
    for session in reversed(open_sessions.get()):
        if session.module is module:
            return session
    return None


def require_key(key: object) -> None:
    """Raise ConfigError unless ``key`` is hashable."""
    try:
        hash(key)
    except TypeError:
        raise ConfigError(
            f"key={key!r} is not hashable",
            where="fxcache.session",
            remedy="pass a string or a number that names the request",
        ) from None


def length_of(timesteps: Sequence[float] | Tensor) -> int:
    """Count the timesteps; ConfigError if they have no length."""
    try:
        return len(timesteps)
    except TypeError:
        raise ConfigError(
            f"timesteps={timesteps!r} have no length",
            where="fxcache.session",
            remedy="pass the list or 1-D tensor that the loop goes through",
        ) from None
