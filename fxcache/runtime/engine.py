"""The way of one call through an optimised module: trajectory, decision, variant, cache."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from fxcache.call import Call
from fxcache.errors import UnknownLengthError
from fxcache.rewrite.variants import NOTHING, Variant, Variants
from fxcache.runtime.captures import CaptureKey, Captures
from fxcache.runtime.features.features import features_of
from fxcache.runtime.features.recording import Recorder, Recording
from fxcache.runtime.mode import require_inference
from fxcache.runtime.notices import NO_FASTER, Notices
from fxcache.runtime.objects import returned
from fxcache.runtime.offload import Offload
from fxcache.runtime.record import Run, RunStep, Stopwatch
from fxcache.runtime.session import Session, current_session
from fxcache.runtime.settings import Settings
from fxcache.runtime.step_context import CFGPhase, StepContext
from fxcache.runtime.trajectory.caller import announcement_of, caller_of
from fxcache.runtime.trajectory.scope import Scope
from fxcache.runtime.trajectory.state import length_of
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.signature import Signature
from fxcache.step import Decision, Step

MAX_RUNS = 16
MAX_RECORDED_STEPS = 4096


class Engine:
    """Captures, trajectories and decisions of one optimised module.

    A step is ``begin``, then the variant, then ``finish``. Where the policy observes a signal,
    ``begin`` lets the prefix run, and ``decide`` chooses the variant that continues from it.

    It is kept on the module as one plain object: torch.export puts dicts and lists back to what
    they were before it traced, and a module here would change ``state_dict``.
    """

    def __init__(self, original: type[nn.Module], settings: Settings) -> None:
        self.signature = Signature(original, settings.capture.latent, settings.capture.dynamic)
        self.settings = settings
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.store = TrajectoryStore(settings.cache.max_trajectories, settings.capture.step_inputs)
        self.store.lengths.fix(settings.run_lengths)
        self._anyone = Scope()  # of calls that no session vouches for
        self._notices = Notices()
        self._captures = Captures(self.signature, settings, self._notices.say)
        self._recorder: Recorder | None = None
        self._features = features_of(settings, self.signature, self._captures, self._notices)
        # Calls wait for one another where one may move weights that another reads.
        self.call_lock = threading.RLock() if settings.cache.offload else nullcontext()

    def begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], compiled: bool
    ) -> StepContext:
        """Find the call's trajectory and its variants; decide, or let the prefix run first.

        Args:
            module: The optimised module.
            args: The call's positional arguments.
            kwargs: The call's keyword arguments.
            compiled: Whether torch.compile compiles what runs next.
        """
        call = self.signature.call(args, kwargs)
        require_inference(module, call)
        session = current_session(module)
        hooks = self._captures.hooks.key(module)
        trajectory = self._locate(module, call, session, hooks)
        try:
            if trajectory.refresh:
                self._notices.of_callers(self.store, trajectory)
            if trajectory.step == 0:
                self._captures.changes.notice(module, hooks)
            call = self._captures.bound(module, call, hooks)
            now = self._step(trajectory, session)
            stopwatch = Stopwatch(call.latent.device, self.settings.cache.timings)
            step = StepContext(call, call, trajectory, session, hooks, now, stopwatch, compiled)
            self._prepare(step, module)
        except BaseException:
            trajectory.end_call(complete=False)
            raise
        return step

    def _locate(
        self, module: nn.Module, call: Call, session: Session | None, hooks: int
    ) -> Trajectory:
        """The call's trajectory, which takes note of the call."""
        scope, place = (session.scope, session.place()) if session else (self._anyone, None)
        caller = caller_of(scope, (call.key, hooks), announcement_of(module), place)
        return self.store.locate(call, caller)

    def _prepare(self, step: StepContext, module: nn.Module) -> None:
        """Find the variants; decide, or let the prefix run."""
        for feature in self._features:
            feature.before_capture(step, module)
        step.variants = self._captures.find(module, step.call, step.hooks)
        step.source = self._captures.source(*(step.stored_as or (step.call, step.variants)))
        step.force()
        for feature in self._features:
            feature.before_step(step)
        if step.variants.plan.signal is None or step.signal is not None:
            self._decide(step, continued=False)
        else:
            step.run_next(step.variants.prefix(step.hoist_level))

    def decide(self, step: StepContext, results: tuple[Tensor, ...]) -> None:
        """After the prefix: choose the variant that continues from its ``results``."""
        prefix = step.variants.prefix(step.hoist_level)
        _, _, step.signal, shared = prefix.signature.unpack(results)
        step.shared = tuple(shared)
        for feature in self._features:
            feature.after_prefix(step)
        self._decide(step, continued=True)

    def _decide(self, step: StepContext, continued: bool) -> None:
        """Choose the variant: the one place where it is decided what a step reuses."""
        trajectory, variants = step.trajectory, step.variants
        if step.signal is not None:  # whose change the policy is told now
            step.now = self._step(trajectory, step.session)
        decision = self._decision(step)
        reused = NOTHING if decision.refresh else variants.all - decision.recompute
        if not reused:
            trajectory.last_refresh = trajectory.step
        for feature in self._features:
            feature.after_decision(step, decision.refresh)
        step.variant = variants.variant(reused, continued, step.hoist_level)
        self._record(step, decision, step.variant)
        trajectory.source = step.source
        step.run_next(step.variant)

    def _decision(self, step: StepContext) -> Decision:
        if step.forced:
            return Decision(True, step.forced)
        try:
            if coefficients := step.variants.coefficients:
                coefficients.require(step.now)
            return self.settings.policy.decide(step.now)
        except UnknownLengthError as error:
            if self.recorder:
                raise
            self._notices.of_length(error, NO_FASTER)
            return Decision(True, "the run's length is unknown")

    def finish(self, step: StepContext, results: tuple[Any, ...]) -> Any:
        """Store what the variant computed for the cache; give the module's own output back."""
        trajectory, variant = step.trajectory, step.variant
        assert variant is not None
        for feature in self._features:
            results = feature.after_step(step, results)
        outputs, values, _, _ = variant.signature.unpack(results)
        if values:
            codec = step.variants.form.codec
            eager_inputs = None if step.compiled else step.inputs
            trajectory.cache.write(
                values, trajectory.step, codec, step.source, step.fresh, eager_inputs
            )
        # Copies, since a captured CUDA graph overwrites what it returned when any is replayed. A
        # pipeline that calls the model twice a step holds the first result over the second call.
        copies = [o.clone() if isinstance(o, Tensor) else o for o in outputs]
        output = returned(step.call, copies, step.variants.program)
        step.stopwatch.stop()
        trajectory.cache.used(step.stopwatch.stopped)
        trajectory.end_call(complete=True)
        return output

    def _step(self, trajectory: Trajectory, session: Session | None) -> Step:
        """The call as its policy sees it."""
        num_steps = session.num_steps if session else None
        return Step(
            trajectory.step,
            num_steps or self.store.expected_steps(trajectory),
            trajectory.last_refresh,
            tuple(trajectory.changes),
            length_of(trajectory.position),
        )

    def _record(self, step: StepContext, decision: Decision, variant: Variant) -> None:
        """Note the step in its run, for the report."""
        trajectory, variants = step.trajectory, step.variants
        half = step.phase is CFGPhase.CONDITIONAL
        if not half:
            trajectory.full_flops = variants.full_flops
        flops = variant.flops + step.hoist_flops
        run = trajectory.run
        if len(run.steps) < MAX_RECORDED_STEPS:
            run.steps.append(
                RunStep(
                    decision,
                    step.stopwatch,
                    flops,
                    trajectory.full_flops,
                    variants.all,
                    half,
                    step.hoist_level,
                )
            )
        if not run.listed:
            run.listed = True
            self.runs.append(run)

    def inherit(self, previous: "Engine") -> None:
        """Take over the captures of ``previous`` for the same module, where the roles agree."""
        if self.signature.same_roles(previous.signature):
            self._captures.inherit(previous._captures)

    def clear(self) -> None:
        """Forget every trajectory and free its stored values."""
        self.store.clear()

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        hooks = self._captures.hooks.key(module)
        return self._captures.find(module, self._captures.bound(module, call, hooks), hooks)

    @property
    def captures(self) -> OrderedDict[CaptureKey, Variants]:
        """The variants of each kind of call."""
        return self._captures.held

    @property
    def offload(self) -> Offload:
        """Of weights that no step reads."""
        return self._captures.offload

    @property
    def recorder(self) -> Recorder | None:
        """Is shown every step of every trajectory; None where nobody is."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        features = (f for f in self._features if not isinstance(f, Recording))
        # First, since guidance replaces results.
        self._features = (*([Recording(recorder)] if recorder else []), *features)
        self._recorder = recorder

    @contextmanager
    def weights_resident(self) -> Iterator[None]:
        """No call is under way that may move weights, and all are where they belong."""
        with self.call_lock:
            self.offload.bring_back()
            yield
