"""The state of one optimised module, and the way of one call through it."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from fxcache.errors import UnknownLengthError
from fxcache.rewrite.runner import NOTHING, Variants
from fxcache.runtime.captures import CaptureKey, Captures
from fxcache.runtime.context import announcement_of
from fxcache.runtime.forecast import Weights
from fxcache.runtime.foresight import foreseen
from fxcache.runtime.guidance import Guidance, Part
from fxcache.runtime.mode import require_inference
from fxcache.runtime.notices import NO_FASTER, Notices
from fxcache.runtime.objects import returned
from fxcache.runtime.offload import Offload
from fxcache.runtime.prologue import Given, Hoisting
from fxcache.runtime.record import Run, RunStep, Stopwatch
from fxcache.runtime.recorder import Recorder
from fxcache.runtime.session import Session, current_session
from fxcache.runtime.settings import Settings
from fxcache.runtime.ticket import Ticket, seen_by
from fxcache.runtime.trajectory.caller import caller_of
from fxcache.runtime.trajectory.scope import Scope
from fxcache.runtime.trajectory.state import length_of
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.runtime.trends import Trends
from fxcache.schedule import Decision, Step
from fxcache.signature import Call, Signature

MAX_RUNS = 16
MAX_RECORDED_STEPS = 4096
NOTHING_CACHED = "nothing cached for such inputs and weights"


class Engine:
    """Captures, sessions and decisions of one optimised module.

    Kept on the module as one plain object: torch.export puts dicts and lists back to what they
    were before it traced, and a module here would change ``state_dict``.
    """

    def __init__(self, original: type[nn.Module], settings: Settings):
        self.signature = Signature(original, settings.capture.latent, settings.capture.dynamic)
        self.settings = settings
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.store = TrajectoryStore(settings.cache.max_trajectories, settings.capture.step_inputs)
        self.store.lengths.fix(settings.run_lengths)
        self._anyone = Scope()  # of calls that no session vouches for
        self._notices = Notices()
        self._captures = Captures(self.signature, settings, self._notices.say)
        self._weights = Weights(settings.policy)
        self._hoisting = Hoisting(settings, self._captures) if settings.hoist else None
        self._trends = Trends(settings.correction) if settings.correction else None
        self._guidance = None
        if settings.guidance:
            self._guidance = Guidance(settings.guidance, self.signature, self._captures)
        # Calls take turns where one may move weights that another reads.
        self.turn = threading.RLock() if settings.cache.offload else nullcontext()
        self.recorder: Recorder | None = None  # is shown every step of every trajectory

    def inherit(self, previous: "Engine") -> None:
        """Take over the captures of ``previous`` for the same module, where the roles agree."""
        if self.signature.same_roles(previous.signature):
            self._captures.inherit(previous._captures)

    def clear(self) -> None:
        """Forget every trajectory and free its cached values."""
        self.store.clear()

    @property
    def captures(self) -> OrderedDict[CaptureKey, Variants]:
        """The variants of each kind of call."""
        return self._captures.held

    @property
    def offload(self) -> Offload:
        """Of weights that no step reads."""
        return self._captures.offload

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No call is under way that may move weights, and all are where they belong."""
        with self.turn:
            self.offload.bring_back()
            yield

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ticket:
        """Find the call's trajectory, and decide which variant runs, or what to observe first."""
        call = self.signature.call(args, kwargs)
        require_inference(module, call)
        session = current_session(module)
        hooks = self._captures.hooks_key(module)
        trajectory = self._locate(module, call, session, hooks)
        try:
            return self._prepare(module, call, trajectory, session, hooks)
        except BaseException:
            trajectory.end_call(complete=False)
            raise

    def _locate(
        self, module: nn.Module, call: Call, session: Session | None, hooks: int
    ) -> Trajectory:
        """The call's trajectory, which takes note of the call."""
        scope, place = (session.scope, session.place()) if session else (self._anyone, None)
        caller = caller_of(scope, (call.key, hooks), announcement_of(module), place)
        return self.store.locate(call, caller)

    def _prepare(
        self,
        module: nn.Module,
        call: Call,
        trajectory: Trajectory,
        session: Session | None,
        hooks: int,
    ) -> Ticket:
        """What runs first for ``call``, and on what."""
        self._notices.of_callers(self.store, trajectory)
        starts = trajectory.step == 0
        part = self._part(call, trajectory, session)
        if starts:
            self._captures.notice_changes(module, hooks)
        call = self._captures.bound(module, call, hooks)
        half = None
        if self._guidance and trajectory.guided and (part is not Part.WHOLE or starts):
            half = self._guidance.half(module, call, hooks)
        told = call
        if half and part is Part.HALF:
            call = half.call
        variants = self._captures.find(module, call, hooks)
        source = self._source(call, variants)
        if half and part is Part.BOTH:
            source = self._source(half.call, half.variants)
        stopwatch = Stopwatch(call.latent.device)
        ticket = Ticket(variants, call, trajectory, session, source, stopwatch)
        ticket.part, ticket.half = part, half
        self._force(ticket)
        if self._trends:
            self._trends.require_fitting(trajectory, call.latent)
        if self._hoisting:
            ticket.given = self._given(self._hoisting, trajectory, call, told, variants)
        if variants.plan.signal is None:
            self._choose(ticket, self._decision(ticket), continued=False)
        elif (signal := foreseen(trajectory, call, variants, self.offload)) is not None:
            self._choose(ticket, self._observed(ticket, signal), continued=False)
        return ticket.ready()

    def decide(self, ticket: Ticket, results: tuple[Tensor, ...]) -> None:
        """After the prefix: which variant continues from what it computed."""
        signal, *shared = results
        if ticket.half and ticket.part is Part.BOTH:
            signal = ticket.half.halves.part_of(signal)
        decision = self._observed(ticket, signal)
        ticket.shared = tuple(shared)
        self._choose(ticket, decision, continued=True)
        ticket.ready()

    def finish(self, ticket: Ticket, results: Sequence[Any]) -> Any:
        """Keep what the variant computed for the cache; give the module's own output back."""
        variants, trajectory, variant = ticket.variants, ticket.trajectory, ticket.variant
        assert variant is not None
        outputs, written = results[: variants.num_outputs], results[variants.num_outputs :]
        if self._guidance and ticket.half:
            if ticket.part is Part.WHOLE:
                self._guidance.require_separable(ticket.half, results)
            elif ticket.part is Part.BOTH:
                kept = self._guidance.keep(trajectory, ticket.half, results)
                written = kept[variants.num_outputs :]
            else:
                step = self._step(trajectory, ticket.session)
                outputs = self._guidance.rebuilt(trajectory, outputs, step)
        if written:
            trajectory.cache.write(
                variant.writes,
                written,
                trajectory.step,
                variants.form.order,
                fresh=ticket.fresh,
                quantized=variants.form.quantized,
            )
        if self.recorder:
            self.recorder(seen_by(ticket, variant, results))
        # Copies, since a captured CUDA graph overwrites what it returned when any is replayed. A
        # pipeline that calls the model twice a step holds the first result over the second call.
        copies = [o.clone() if isinstance(o, Tensor) else o for o in outputs]
        output = returned(ticket.call, copies, variants.program)
        ticket.stopwatch.stop()
        trajectory.cache.used(ticket.stopwatch.stopped)
        trajectory.end_call(complete=True)
        return output

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        hooks = self._captures.hooks_key(module)
        return self._captures.find(module, self._captures.bound(module, call, hooks), hooks)

    def _part(self, call: Call, trajectory: Trajectory, session: Session | None) -> Part:
        """What the call computes of its batch."""
        if self._guidance is None:
            return Part.WHOLE
        try:
            part = self._guidance.part(trajectory, call, self._step(trajectory, session))
        except UnknownLengthError as error:
            self._tell_of_length(error, "Both halves are computed at every step.")
            return Part.WHOLE
        if not trajectory.guided:
            self._notices.say(
                "the batch is not one tensor that holds the same latents twice",
                "Leave guidance= out where there is no classifier-free guidance in one batch.",
                "Both halves are computed at every step.",
            )
        return part

    def _source(self, call: Call, variants: Variants) -> object:
        """What is cached comes from this: a capture, weights, and sizes that it leaves open."""
        expressions = variants.program.sizes.expressions
        sizes = [call.tensors[index].shape[dim] for index, dim in expressions]
        return (variants, self._captures.generation, *sizes)

    def _force(self, ticket: Ticket) -> None:
        """Note why the call must refresh, if it must."""
        trajectory = ticket.trajectory
        stale = trajectory.source != ticket.source
        reason = trajectory.refresh or (NOTHING_CACHED if stale else "")
        ticket.fresh = bool(reason)
        ticket.forced = reason or (ticket.part.value if ticket.part is Part.BOTH else "")

    def _given(
        self,
        hoisting: Hoisting,
        trajectory: Trajectory,
        call: Call,
        told: Call,
        variants: Variants,
    ) -> Given:
        """What the latent has no part in, so far as it was asked for and can be known."""
        found = hoisting.given(trajectory, call, told, variants)
        if found.short:
            self._notices.say(*found.short, "What depends on it is computed at every step.")
        return found

    def _observed(self, ticket: Ticket, signal: Tensor) -> Decision:
        """The decision once ``signal`` is known, on every step, forced ones too."""
        observes, trajectory = self.settings.policy.observes, ticket.trajectory
        assert observes is not None
        ticket.signal = signal
        if ticket.fresh:
            trajectory.observer.restart()
        trajectory.observer.note(signal, observes.since, self.settings.cache.kernels)
        trajectory.run.signal_waits += signal.device.type != "cpu"
        decision = self._decision(ticket)
        if decision.refresh:
            trajectory.observer.refreshed(signal)
        return decision

    def _decision(self, ticket: Ticket) -> Decision:
        if ticket.forced:
            return Decision(True, ticket.forced)
        step = self._step(ticket.trajectory, ticket.session)
        try:
            if self._trends:
                self._trends.require_length(step)
            return self.settings.policy.decide(step)
        except UnknownLengthError as error:
            self._tell_of_length(error, NO_FASTER)
            return Decision(True, "the run's length is unknown")

    def _step(self, trajectory: Trajectory, session: Session | None) -> Step:
        """The call as its policy is told of it."""
        num_steps = session.num_steps if session else None
        return Step(
            trajectory.step,
            num_steps or self.store.expected_steps(trajectory),
            trajectory.last_refresh,
            tuple(trajectory.observer.changes),
            length_of(trajectory.position),
        )

    def _choose(self, ticket: Ticket, decision: Decision, continued: bool) -> None:
        """Let the variant run that carries ``decision`` out, on what it reads."""
        variants, trajectory = ticket.variants, ticket.trajectory
        reused = NOTHING if decision.refresh else variants.all
        if decision.recompute:
            reused -= decision.recompute
        ticket.variant = variant = variants.variant(reused, continued, ticket.given.level)
        if not reused:
            trajectory.last_refresh = trajectory.step
        if ticket.part is not Part.HALF:
            trajectory.full_flops = variants.full_flops
        step = RunStep(
            decision,
            ticket.stopwatch,
            variant.flops + ticket.given.flops,
            trajectory.full_flops,
            variants.all,
            ticket.part is Part.HALF,
            ticket.given.level,
        )
        self._record(trajectory, step)
        trajectory.source = ticket.source
        if not variant.reads:
            return
        cached = trajectory.cache.read(variant.reads)
        if variants.form.order or variants.form.correction:
            ages = trajectory.cache.ages(variant.reads, trajectory.step)
            now = self._step(trajectory, ticket.session)
            if self._trends:
                half = ticket.half if ticket.part is Part.HALF else None
                part = half.halves.second if half else None
                cached += self._trends.of(variants.plan, variant.reads, ages, now, cached, part)
            else:
                cached += (self._weights.of(ages, now, cached[0]),)
        ticket.cached = cached + trajectory.cache.moments(variant.moments)

    def _record(self, trajectory: Trajectory, step: RunStep) -> None:
        if len(trajectory.run.steps) < MAX_RECORDED_STEPS:
            trajectory.run.steps.append(step)
        if not trajectory.run.listed:
            trajectory.run.listed = True
            self.runs.append(trajectory.run)

    def _tell_of_length(self, error: UnknownLengthError, so: str) -> None:
        """Say that the policy lacks the run's length; a calibration fails by it."""
        if self.recorder:
            raise error
        self._notices.say(error.what, f"{error.remedy[0].upper()}{error.remedy[1:]}.", so)
