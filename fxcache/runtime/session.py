"""Whose cache it is: sessions hold branches, and each call finds its own."""

import threading
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from torch import nn

from fxcache.errors import ConfigError, StateError
from fxcache.runtime.branch import Branch, Trust
from fxcache.runtime.context import Announcement
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.position import Element, Place, position_of

if TYPE_CHECKING:
    from fxcache.signature import Call

MAX_BRANCHES = 8

open_sessions: ContextVar[tuple["Session", ...]] = ContextVar("fxcache_sessions", default=())


class Branches:
    """The trajectories of one session, least recently used first, bounded."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.held: list[Branch] = []
        self.single_calls = 0  # runs in a row that ended after one call
        self.crowded = False  # whether a request was ever pushed out before its end
        self.lock = threading.Lock()

    def locate(
        self, call: "Call", said: Announcement | None, hooks: int = 0
    ) -> tuple[Branch | None, bool]:
        """The branch that ``call`` belongs to, and whether it starts a run there.

        ``hooks``: the number of the hooks on submodules; calls under other hooks are another's.

        None where nothing identifies the caller: then nothing may be reused or kept.
        """
        name = said.name if said else ""
        told = None
        if said and said.step_index is not None:
            told = Place(said.step_index, said.num_steps)
        position = position_of(call.timestep, told, may_wait=self.trust is not Trust.SESSION)
        with self.lock:
            named = (b for b in reversed(self.held) if (b.name, b.hooks) == (name, hooks))
            branch = next((b for b in named if b.recognises(call, position)), None)
            if branch is not None:
                self.held.remove(branch)
            elif call.conditioning or isinstance(position, Element) or self.trust:
                branch = Branch(self.trust, self._spare_cache(), name, hooks)
            else:
                return None, True
            self.held.append(branch)
            lone = branch.step == 0
            starts = branch.advance(call, position)
            self._count(starts, lone)
            return branch, starts

    def _count(self, starts: bool, lone: bool) -> None:
        """Keep ``single_calls``; ``lone``: the branch had one call before this one."""
        if starts and lone:
            self.single_calls += 1
        elif not starts:
            self.single_calls = 0

    def _spare_cache(self) -> FeatureCache:
        """Buffers of a branch that nobody can continue, or of the oldest of too many, or new."""
        spare = next((b for b in self.held if b.abandoned), None)
        if spare is None and len(self.held) >= MAX_BRANCHES:
            spare = self.held[0]
        if spare is None:
            return FeatureCache()
        self.held.remove(spare)
        self.single_calls += spare.abandoned and spare.step == 0
        self.crowded |= spare.unfinished and not spare.abandoned
        # A call still under way will write to its cache when it ends.
        return spare.cache if spare.complete else FeatureCache()

    def clear(self) -> None:
        """Forget every trajectory and free its buffers."""
        with self.lock:
            self.held.clear()

    @property
    def nbytes(self) -> int:
        """Bytes cached."""
        return sum(branch.nbytes for branch in self.held)

    @property
    def hoisted_bytes(self) -> int:
        """Bytes of hoisted values."""
        return sum(kept.nbytes for branch in self.held for kept in branch.prologues.values())


class Session:
    """One run of a custom sampling loop: all calls inside ``with`` belong to it.

    ``num_steps``: how many calls of each branch the run makes. ``key``: a name under which the
    branches outlive the block, so that interleaved requests can open it once a step.
    """

    def __init__(self, module: nn.Module, branches: Branches, num_steps: int | None):
        self.module, self.branches, self.num_steps = module, branches, num_steps

    def __enter__(self) -> Self:
        if current_session(self.module) is not None:
            raise StateError(
                "a session of this module is open already in this thread or task",
                where="with fxcache.session(...)",
                remedy="close it first; generators that take turns open a session(key=...) around "
                "each call, not around their yield",
            )
        if self.branches.trust is Trust.SESSION:
            self.branches.clear()
        open_sessions.set((*open_sessions.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        open_sessions.set(tuple(s for s in open_sessions.get() if s is not self))


def current_session(module: nn.Module) -> Session | None:
    """The innermost session open for ``module`` in this thread or task."""
    for session in reversed(open_sessions.get()):
        if session.module is module:
            return session
    return None


def require_num_steps(num_steps: object) -> None:
    """ConfigError unless ``num_steps`` is None or a positive int."""
    whole = isinstance(num_steps, int) and not isinstance(num_steps, bool) and num_steps > 0
    if num_steps is not None and not whole:
        raise ConfigError(
            f"num_steps={num_steps!r} is not a positive whole number",
            where="fxcache.session",
            remedy="pass how many times the loop calls the model, or leave it out",
        )


def require_key(key: object) -> None:
    """ConfigError unless ``key`` can be looked up."""
    try:
        hash(key)
    except TypeError:
        raise ConfigError(
            f"key={key!r} is not hashable",
            where="fxcache.session",
            remedy="pass a string or a number that names the request",
        ) from None
