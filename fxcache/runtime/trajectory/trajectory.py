"""A trajectory: the data that is kept between the calls of one run."""

import weakref
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.record import Run
from fxcache.runtime.trajectory.attribution import Certainty
from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.further_latents import FurtherLatents
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
# A trajectory that is this many steps behind its copy belonged to the same caller.
STEPS_BEHIND = 2
# A trajectory that no call continues ends after this many similar runs have begun.
NEWER_STARTS = 2


class Trajectory:
    """One run of one request, or of one half of its classifier-free guidance.

    Its first call refreshes, and no value passes from one trajectory to another.
    """

    def __init__(self, scope: AnyScope, name: str, kind: Hashable, cache: FeatureCache):
        self.scope = scope
        self.name = name  # the name from the pipeline; empty if there is none
        self.kind = kind  # shapes, dtypes, options and hooks of its last call
        self.cache = cache
        self.state = State(Unknown(), step=-1)
        self.schedule: Schedule | None = None  # the key of its schedule; None if unknown
        self.latent = torch.empty(0)  # a sample of the latent of its last call
        # The trajectory that this one is a copy of, after an ambiguous call. The reference is weak,
        # because a chain of copies would keep the buffers of all of them alive.
        self._original: weakref.ref[Trajectory] | None = None
        self.busy = False  # whether its last call is still running
        self.newer_starts = 0  # similar runs that began since the last call
        self.refresh = ""  # why the running call must refresh; empty if it may reuse
        self.new_prompts = 0  # consecutive calls that refresh because of new conditioning
        self.new_inputs: tuple[str, ...] = ()  # the paths of the new conditioning
        self.source: object = None  # identifies the capture and weights of the cached values
        self.last_refresh = 0  # the last step that refreshed everything
        self.changes: list[float] = []  # changes of the policy's signal since the last refresh
        self.full_flops = 0  # FLOPs of a full call of the whole batch
        self.run = Run()
        self._refs: tuple[TensorRef, ...] = ()
        self._distances: tuple[float, ...] = ()  # movements of its latent at the last two steps
        self._matches: tuple[Match, ...] = ()  # matches between the conditioning of the last steps
        self._further = FurtherLatents()
        self._identical = 0  # calls in a row with the timestep and the latent of the call before
        self._doubled = 0  # callers beyond the first that may share this trajectory
        self._slots: dict[type, Any] = {}  # the data of each feature, by class

    @property
    def step(self) -> int:
        """The index of its last call, from 0."""
        return self.state.step

    @property
    def position(self) -> Position:
        """The position of its last call."""
        return self.state.position

    @property
    def copy_of(self) -> "Trajectory | None":
        """The trajectory that this one is a copy of; None if there is none, or it was dropped."""
        return self._original() if self._original else None

    @property
    def nbytes(self) -> int:
        """The size of the cached values in bytes."""
        return self.cache.nbytes

    def slot(self, kind: type[S]) -> S:
        """Return the data that one feature keeps for this trajectory.

        It is the only object of the class ``kind``, created without arguments at the first use.
        """
        slot = self._slots.get(kind)
        if slot is None:
            slot = self._slots[kind] = kind()
        return slot

    def compare(self, conditioning: Conditioning) -> tuple[Match, ...]:
        """Return how each conditioning tensor compares with that of the last call."""
        return conditioning.compare(self._refs)

    def changed(
        self, conditioning: Conditioning, matches: Sequence[Match], certainty: Certainty
    ) -> Match:
        """Return how the conditioning changed, apart from further latents.

        Only a call that certainly belongs to the trajectory shows that an input is a latent.
        """
        known = certainty is Certainty.CERTAIN
        return conditioning.summary(matches, self._further.of(conditioning) if known else ())

    def evidence(
        self,
        position: Position,
        conditioning: Match,
        name: str,
        kind: Hashable,
        candidates: Sequence["Trajectory"],
    ) -> Evidence:
        """The evidence for a call of this scope. This trajectory is one of ``candidates``."""
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
            doubled=self._doubled > 0,
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
        """Record the start of a call.

        Args:
            transition: The transition to its step.
            conditioning: The conditioning of the call.
            matches: How the conditioning compares with that of the last call.
            kind: The kind of the call, see ``Caller``.
            latent: A sample of the latent.
            distance: The movement of the latent; None if it was not measured.
        """
        self._identical = self._identical + 1 if transition.repeats and distance == 0 else 0
        self._doubled = max(self._doubled, self._identical)
        if self.state.step < 0:
            self.schedule = schedule_of(transition.state.position)
            self.run = Run(transition.refresh)
        else:
            self._note_changes(conditioning, matches, transition.refresh)
            if not transition.repeats:
                self._matches = tuple(matches)
                self._further = self._further.after(matches)
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
        """Count consecutive refreshes because of new prompts."""
        if not any(matches):
            self.new_prompts, self.new_inputs = 0, ()
            return
        changed = [i for i in conditioning.kinds.prompts if matches[i] >= Match.REWRITTEN]
        self.new_prompts = self.new_prompts + 1 if changed and refresh else 0
        self.new_inputs = tuple(conditioning.paths[i] for i in changed)

    def set_results(self, latents: Sequence[Tensor], results: Sequence[Any]) -> None:
        """Record the shapes of what the call returned; ``latents``: those of the call."""
        self._further = self._further.with_results(latents, results)

    def end_call(self, complete: bool) -> None:
        """Record the end of a call; ``complete``: it finished, and its values were cached."""
        self.busy = False
        if not complete:
            self.state = self.state._replace(complete=False)

    def fork(self, cache: FeatureCache) -> "Trajectory":
        """Return a copy in the same state, without cached values."""
        fork = Trajectory(self.scope, self.name, self.kind, cache)
        fork.state, fork.schedule, fork.run = self.state, self.schedule, self.run
        fork.last_refresh = self.last_refresh
        self._doubled = fork._doubled = max(0, self._doubled - 1)  # one of the callers leaves
        forking = ((k, s) for k, s in self._slots.items() if hasattr(s, "fork"))
        fork._slots = {kind: slot.fork() for kind, slot in forking}
        fork._refs, fork._matches, fork._original = self._refs, self._matches, weakref.ref(self)
        fork._distances, fork._further = self._distances, self._further
        return fork

    @property
    def left_behind(self) -> "Trajectory | None":
        """The trajectory that this one is a copy of, if no call continued it for several steps."""
        original = self.copy_of
        behind = original is not None and original.step + STEPS_BEHIND <= self.step
        return original if behind else None

    @property
    def finished(self) -> bool:
        """Whether no call can continue this trajectory, or none is expected to."""
        if self.busy:
            return False
        superseded = self.newer_starts >= NEWER_STARTS
        return self.scope.closed or superseded or ended(self.state) or self._abandoned

    @property
    def _abandoned(self) -> bool:
        """Whether its schedule, or a tensor that stayed the same so far, no longer exists."""
        if isinstance(self.position, Element) and self.position.schedule() is None:
            return True
        same_tensor = (Match.SAME, Match.REWRITTEN)
        pairs = zip(self._refs, self._matches, strict=False)
        return any(match in same_tensor and not ref.alive for ref, match in pairs)
