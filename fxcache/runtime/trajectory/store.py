"""The store of all trajectories of one module. It finds, bounds, recycles and clears them."""

import threading
from collections.abc import Iterable, Sequence

from torch import Tensor

from fxcache.call import Call
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.runtime.record import Attributions, is_asynchronous
from fxcache.runtime.trajectory import state as states
from fxcache.runtime.trajectory.attribution import Attribution, Certainty, attribute
from fxcache.runtime.trajectory.caller import Caller
from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.inputs import Conditioning, Inputs, only_same
from fxcache.runtime.trajectory.latent import Likeness, likenesses, sample_of
from fxcache.runtime.trajectory.lengths import RunLengths
from fxcache.runtime.trajectory.position import Motion, Position, position_of
from fxcache.runtime.trajectory.scope import AnyScope
from fxcache.runtime.trajectory.state import Event, Transition
from fxcache.runtime.trajectory.tensor_ref import Match
from fxcache.runtime.trajectory.trajectory import Trajectory

LONE_STARTS = 4  # consecutive runs of one call after which the next one counts


class TrajectoryStore:
    """The trajectories of one module, least recently used first."""

    def __init__(self, limit: int, step_inputs: frozenset[str] = frozenset()):
        """Make an empty store.

        Args:
            limit: The greatest number of trajectories to keep.
            step_inputs: Names of inputs that belong to a step and not to a run.
        """
        self.trajectories: list[Trajectory] = []
        self.lengths = RunLengths()
        self.counts = Attributions()
        self.limit = limit
        # Dropped trajectories whose buffers are in use. PyTorch returns the memory of a freed
        # buffer at once to the stream that allocated it, while another stream may still read it.
        self._retired: list[Trajectory] = []
        self._lone = 0  # the number of consecutive runs that ended with their first call
        self._inputs = Inputs(step_inputs)
        self._lock = threading.Lock()

    def locate(self, call: Call, caller: Caller) -> Trajectory:
        """Find or start the trajectory of ``call``, and record the call in it."""
        position = position_of(call.timestep, caller.place)
        sample = sample_of(*call.latents)
        waits = is_asynchronous(sample.device)
        with self._lock:
            conditioning = self._inputs.conditioning(call)
            known = [t for t in self.trajectories if t.scope == caller.scope]
            self.counts.calls += 1
            compared = [t.compare(conditioning) for t in known]
            self.counts.device_waits += conditioning.waited(compared) and waits
            plain = self._plain_step(known, compared, position, conditioning, caller, sample)
            if plain is not None:
                return plain
            evidence = [
                t.evidence(position, conditioning.summary(m), caller.name, caller.kind, known)
                for t, m in zip(known, compared, strict=True)
            ]

            def compare(indices: Sequence[int]) -> list[Likeness]:
                self.counts.by_latent += 1
                self.counts.device_waits += waits
                return likenesses([known[i].latent for i in indices], sample)

            attribution = attribute(evidence, compare)
            index = attribution.index
            self.counts.ambiguous += attribution.certainty is Certainty.AMBIGUOUS
            matches = () if index is None else compared[index]
            if index is None:
                trajectory = self._started(caller, known, evidence)
                transition = states.begin(position, attribution.reason)
            else:
                trajectory = self._continued(known[index], attribution)
                changed = known[index].changed(conditioning, matches, attribution.certainty)
                transition = advanced(trajectory, position, changed, attribution)
            self._inputs.record_replaced(matches, conditioning)
            trajectory.begin_call(
                transition, conditioning, matches, caller.kind, sample, attribution.distance
            )
            self.trajectories.append(trajectory)
        return trajectory

    def _plain_step(
        self,
        known: Sequence[Trajectory],
        compared: Sequence[tuple[Match, ...]],
        position: Position,
        conditioning: Conditioning,
        caller: Caller,
        sample: Tensor,
    ) -> Trajectory | None:
        """A fast path for the next step of the only trajectory with the same inputs; None else.

        ``attribute`` finds the same trajectory, with more comparisons.
        """
        if conditioning.digests or (caller.scope.keyed and len(known) > 1):
            return None
        index = only_same(compared, conditioning)
        if index is None:
            return None
        trajectory = known[index]
        if trajectory.busy or trajectory.kind != caller.kind or trajectory.name != caller.name:
            return None
        transition = states.step_on(trajectory.state, position)
        if transition is None:
            return None
        matches = compared[index]
        trajectory.begin_call(transition, conditioning, matches, caller.kind, sample, None)
        self._lone = 0
        if self.trajectories[-1] is not trajectory:
            self.trajectories.remove(trajectory)
            self.trajectories.append(trajectory)
        return trajectory

    def _continued(self, trajectory: Trajectory, attribution: Attribution) -> Trajectory:
        """``trajectory``, or a copy of it without cached values if the call is ambiguous."""
        if attribution.certainty is Certainty.AMBIGUOUS:
            return trajectory.fork(self._spare_cache())
        self._lone = 0
        self.trajectories.remove(trajectory)
        if (left := trajectory.left_behind) in self.trajectories:
            self.trajectories.remove(left)
            self._retire([left])
        return trajectory

    def _started(
        self, caller: Caller, known: Sequence[Trajectory], evidence: Sequence[Evidence]
    ) -> Trajectory:
        """Return a new trajectory. Counts the start for the trajectories that it may supersede."""
        for trajectory, e in zip(known, evidence, strict=True):
            same_prompt = e.same_name and e.conditioning <= Match.REWRITTEN
            trajectory.newer_starts += same_prompt and e.motion in (Motion.BACK, Motion.NEXT)
        self._count_lone_start(evidence[-1] if evidence else None)
        return Trajectory(caller.scope, caller.name, caller.kind, self._spare_cache())

    def _count_lone_start(self, last: Evidence | None) -> None:
        """Count consecutive starts of one caller; ``last``: evidence for the scope's last call."""
        if last is None or not last.begun or last.conditioning is Match.FOREIGN:
            self._lone = 0
        elif last.motion is not Motion.REPEAT:
            self._lone += 1
        self.counts.lone_starts += self._lone >= LONE_STARTS

    def _spare_cache(self) -> FeatureCache:
        """The buffers of a finished trajectory, of the oldest one beyond the limit, or new ones."""
        self._retire(())
        spare = next((t for t in self.trajectories if t.finished), None)
        if spare is None and len(self.trajectories) >= self.limit:
            spare = next((t for t in self.trajectories if not t.busy), self.trajectories[0])
            self.counts.evicted += 1
        if spare is None:
            return FeatureCache()
        self._drop(spare)
        if spare.busy:  # its running call will write to its cache
            self._retire([spare])
            return FeatureCache()
        return spare.cache.recycle()

    def _retire(self, trajectories: Iterable[Trajectory]) -> None:
        """Keep dropped trajectories until the device no longer uses their buffers."""
        self._retired = [t for t in (*self._retired, *trajectories) if t.cache.in_use]

    def withdraw(self, trajectory: Trajectory) -> None:
        """End a call that the original runs. If it is the first of its run, the run does not count.

        The run then begins with its next call, as if it had had no other.
        """
        trajectory.end_call(complete=False)
        with self._lock:
            if trajectory.step == 0 and trajectory in self.trajectories:
                self.trajectories.remove(trajectory)

    def _drop(self, trajectory: Trajectory) -> None:
        """Remove a trajectory, and record the length of its run."""
        self.trajectories.remove(trajectory)
        self._record_length(trajectory)

    def _record_length(self, trajectory: Trajectory) -> None:
        """Record the length of a run that has ended, unless it was cut short."""
        if not trajectory.scope.cut_short:
            self.lengths.record(trajectory.state, trajectory.schedule)

    def expected_steps(self, trajectory: Trajectory, end: int | None = None) -> int | None:
        """Return the expected number of calls of the run; None if it is unknown.

        Args:
            trajectory: The trajectory of the run.
            end: The place in the schedule at which its calls end; None if unknown.
        """
        return self.lengths.expected(trajectory.state, trajectory.schedule, end)

    def run_lengths(self) -> list[tuple[int, int, int]]:
        """Return the lengths of the runs so far, in the form that ``RunLengths.fix`` takes."""
        with self._lock:
            for trajectory in self.trajectories:
                self._record_length(trajectory)
        return self.lengths.places()

    def release(self, scope: AnyScope) -> None:
        """Drop the trajectories of a closed scope.

        Those with buffers that graphs write stay until a new trajectory takes their buffers: CUDA
        graphs are captured for the addresses of the buffers.
        """
        with self._lock:
            closed = [t for t in self.trajectories if t.scope is scope]
            dropped = [t for t in closed if not t.cache.written_by_graphs]
            for trajectory in dropped:
                self._drop(trajectory)
            self._retire(dropped)

    def clear(self) -> None:
        """Drop all trajectories, and free their buffers."""
        with self._lock:
            self._retire(self.trajectories)
            self.trajectories.clear()

    @property
    def nbytes(self) -> int:
        """The size of all cached values in bytes."""
        return sum(trajectory.nbytes for trajectory in [*self.trajectories, *self._retired])

    def slot_bytes(self, kind: type) -> int:
        """Return the bytes that one feature stores in its slots of the class ``kind``."""
        return sum(t.slot(kind).nbytes for t in [*self.trajectories, *self._retired])


def advanced(
    trajectory: Trajectory, position: Position, changed: Match, attribution: Attribution
) -> Transition:
    """Return the transition of ``trajectory`` to the next step."""
    event = Event(position, changed, attribution.certainty, attribution.reason)
    return states.advance(trajectory.state, event)
