"""What one trajectory keeps between its calls."""

import weakref
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.record import Run
from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.inputs import Conditioning
from fxcache.runtime.trajectory.lengths import Schedule, schedule_of
from fxcache.runtime.trajectory.position import (
    PLACES,
    Element,
    Number,
    Position,
    Unknown,
    motion,
)
from fxcache.runtime.trajectory.scope import AnyScope
from fxcache.runtime.trajectory.state import State, Transition, ended
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef

S = TypeVar("S")
STEPS_BEHIND = 2  # of its copy, after which a trajectory was the same caller's
NEWER_STARTS = 2  # after which a trajectory that nobody continued is given up


class Trajectory:
    """One run of one request, or of one half of its classifier-free guidance.

    Its first call refreshes, and no value passes from one trajectory to another.
    """

    def __init__(self, scope: AnyScope, name: str, kind: Hashable, cache: FeatureCache):
        self.scope = scope
        self.name = name  # that the pipeline gives it, if it does
        self.kind = kind  # shapes, dtypes, options and hooks of its last call
        self.cache = cache
        self.state = State(Unknown(), step=-1)
        self.schedule: Schedule | None = None  # what tells it from others; None where nothing does
        self.latent = torch.empty(0)  # a sample of its last call's
        # Of what it is a copy, where the two could not be told apart. Weak: a chain of copies
        # would keep the buffers of all of them alive.
        self._original: weakref.ref[Trajectory] | None = None
        self.busy = False  # whether its last call is under way
        self.newer_starts = 0  # of trajectories like it, since it was last continued
        self.refresh = ""  # why the call under way must refresh
        self.new_prompts = 0  # calls in a row that refresh since their conditioning is new
        self.new_inputs: tuple[str, ...] = ()  # these inputs
        self.source: object = None  # which capture of which weights computed what is cached
        self.last_refresh = 0  # the last step that refreshed everything
        self.changes: list[float] = []  # of the policy's signal, since the last refresh
        self.full_flops = 0  # of a call of the whole batch
        self.run = Run()
        self._refs: tuple[TensorRef, ...] = ()
        self._distances: tuple[float, ...] = ()  # by which its latent moved at the last two steps
        self._matches: tuple[Match, ...] = ()  # of the conditioning at the last two steps
        self._slots: dict[type, Any] = {}  # what features keep, by its class

    @property
    def step(self) -> int:
        """The number of its last call, from 0."""
        return self.state.step

    @property
    def position(self) -> Position:
        """Of its last call."""
        return self.state.position

    @property
    def copy_of(self) -> "Trajectory | None":
        """The trajectory that it is a copy of, as long as that is kept."""
        return self._original() if self._original else None

    @property
    def nbytes(self) -> int:
        """Bytes that are stored for reuse."""
        return self.cache.nbytes

    def slot(self, kind: type[S]) -> S:
        """What one feature keeps for this trajectory: the one object of the class ``kind``.

        Made without arguments when it is first asked for.
        """
        found = self._slots.get(kind)
        if found is None:
            found = self._slots[kind] = kind()
        return found

    def compare(self, conditioning: Conditioning) -> tuple[Match, ...]:
        """How each conditioning tensor compares with the last call's."""
        return conditioning.compare(self._refs)

    def evidence(
        self,
        position: Position,
        conditioning: Match,
        name: str,
        kind: Hashable,
        candidates: Sequence["Trajectory"],
    ) -> Evidence:
        """How a call of this scope compares with the last one; it is one of ``candidates``."""
        state, original = self.state, self.copy_of
        copied = original is not None and original in candidates
        return Evidence(
            motion(state.position, position, state.direction),
            conditioning,
            same_kind=self.kind == kind,
            same_name=self.name == name,
            scheduled=isinstance(position, PLACES),
            vouched=self.scope.vouched,
            keyed=self.scope.keyed,
            begun=state.step == 0,
            drift=max(self._distances, default=None),
            copy_of=candidates.index(original) if copied else None,
            restarted=self.newer_starts > 0,
            busy=self.busy,
        )

    def begin_call(
        self,
        transition: Transition,
        conditioning: Conditioning,
        matches: Sequence[Match],
        kind: Hashable,
        latent: Tensor,
        distance: float | None,
    ) -> None:
        """Take note of a call that begins.

        Args:
            transition: To its step.
            conditioning: What it is conditioned on.
            matches: How that compares with the last call's.
            kind: Of the call, see ``Caller``.
            latent: A sample of its latent.
            distance: By how much its latent moved; None where that was not measured.
        """
        if self.state.step < 0:
            self.schedule = schedule_of(transition.state.position)
            self.run = Run(transition.refresh)
        else:
            self._note_changes(conditioning, matches, transition.refresh)
            if not transition.repeats:
                self._matches = tuple(matches)
        self.state, self.refresh = transition.state, transition.refresh
        unchanged = self._refs and not any(matches) and not conditioning.digests
        if not unchanged:
            self._refs = conditioning.refs()
        self.kind, self.latent = kind, latent
        self._distances = () if distance is None else (*self._distances[-1:], distance)
        self.busy, self.newer_starts = True, 0
        position = transition.state.position
        self.run.waits += isinstance(position, Number) and position.waited

    def _note_changes(
        self, conditioning: Conditioning, matches: Sequence[Match], refresh: str
    ) -> None:
        if not any(matches):
            self.new_prompts, self.new_inputs = 0, ()
            return
        changed = [i for i in conditioning.kinds.prompts if matches[i] >= Match.REWRITTEN]
        self.new_prompts = self.new_prompts + 1 if changed and refresh else 0
        self.new_inputs = tuple(conditioning.paths[i] for i in changed)

    def end_call(self, complete: bool) -> None:
        """The call is over; ``complete``: it ran to its end, so that its values were cached."""
        self.busy = False
        if not complete:
            self.state = self.state._replace(complete=False)

    def fork(self, cache: FeatureCache) -> "Trajectory":
        """A trajectory in the same state, with nothing cached."""
        fork = Trajectory(self.scope, self.name, self.kind, cache)
        fork.state, fork.schedule, fork.run = self.state, self.schedule, self.run
        fork.last_refresh = self.last_refresh
        forking = ((k, s) for k, s in self._slots.items() if hasattr(s, "fork"))
        fork._slots = {kind: slot.fork() for kind, slot in forking}
        fork._refs, fork._matches, fork._original = self._refs, self._matches, weakref.ref(self)
        fork._distances = self._distances
        return fork

    @property
    def left_behind(self) -> "Trajectory | None":
        """The trajectory that it is a copy of, once that was not continued for several steps."""
        original = self.copy_of
        behind = original is not None and original.step + STEPS_BEHIND <= self.step
        return original if behind else None

    @property
    def finished(self) -> bool:
        """Whether no call can continue it, or none is expected to."""
        if self.busy:
            return False
        superseded = self.newer_starts >= NEWER_STARTS
        return self.scope.closed or superseded or ended(self.state) or self._abandoned

    @property
    def _abandoned(self) -> bool:
        """Whether what identified it is gone: its schedule, or a tensor that it kept."""
        if isinstance(self.position, Element) and self.position.schedule() is None:
            return True
        kept = (Match.SAME, Match.REWRITTEN)
        pairs = zip(self._refs, self._matches, strict=False)
        return any(match in kept and not ref.alive for ref, match in pairs)
