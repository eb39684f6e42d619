"""The engine of an optimised module: trajectory, decision, variant and cache of each call."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.call import Call
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import Variants
from fxcache.runtime.agreement import agreed
from fxcache.runtime.capture_keys import CaptureKey
from fxcache.runtime.captures import Captures
from fxcache.runtime.decisions import decided
from fxcache.runtime.enclosing import enclosing_session
from fxcache.runtime.features.features import features_of
from fxcache.runtime.features.recording import Recorder, Recording
from fxcache.runtime.mode import reason_for_original, require_inference
from fxcache.runtime.notices import Notices
from fxcache.runtime.objects import returned
from fxcache.runtime.record import Run, Stopwatch, Totals
from fxcache.runtime.session import Session, current_session
from fxcache.runtime.settings import Settings
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.caller import announcement_of, caller_of
from fxcache.runtime.trajectory.scope import Scope
from fxcache.runtime.trajectory.state import length_of
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.signature import Signature
from fxcache.step import Decision, Step

MAX_RUNS = 16


class Engine:
    """Captures, trajectories and decisions of one optimised module.

    A call runs ``begin``, the variant, and ``finish``. If the policy observes a signal, the prefix
    runs after ``begin``, and ``decide`` then chooses the variant that continues from the prefix.

    The engine is a plain object in an attribute of the module. torch.export would reset a dict or
    a list to its content before tracing, and a module would change ``state_dict``.
    """

    def __init__(self, original: type[nn.Module], settings: Settings) -> None:
        self.signature = Signature(original, settings.capture.latent, settings.capture.dynamic)
        self.settings = settings
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.totals = Totals()
        self.store = TrajectoryStore(settings.cache.max_trajectories, settings.capture.step_inputs)
        self.store.lengths.fix(settings.run_lengths)
        self.notices = Notices()
        self._default_scope = Scope()  # for calls outside of sessions
        self.graphs = Captures(self.signature, settings, self.notices.warn)
        self._recorder: Recorder | None = None
        self._features = features_of(settings, self.signature, self.graphs, self.notices)
        # With offloading, calls take turns: one call may move weights that another call reads.
        self.call_lock = threading.RLock() if settings.cache.offload else nullcontext()
        self._device = torch.device("cpu")  # that of the last call

    def begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], compiled: bool
    ) -> StepContext | None:
        """Find the call's trajectory and variants. Decide, or let the prefix run first.

        Return None for a call that the original module must run.

        Args:
            module: The optimised module.
            args: The call's positional arguments.
            kwargs: The call's keyword arguments.
            compiled: Whether torch.compile compiles the graph that runs next.
        """
        # The time starts here. The device of the call is not known before its arguments are bound.
        stopwatch = Stopwatch(self._device, self.settings.cache.timings)
        call = self.graphs.kept.added_to(self.signature.call(args, kwargs), module)
        self._device = call.latent.device
        stopwatch.on(self._device)
        if reason := reason_for_original(call):
            self.notices.warn(*reason)
            return None
        require_inference(module)
        if self.graphs.effects.expected(module, call.key):
            return None
        session = current_session(module) or enclosing_session(module)
        hooks = self.graphs.hooks.key(module)
        trajectory = self._locate(module, call, session, hooks)
        try:
            if trajectory.refresh:
                self.notices.warn_attributions(self.store, trajectory)
            now = self._step(trajectory, session)
            if trajectory.step == 0 or self.settings.policy.plans_refresh(now):
                self.graphs.changes.notice(module, hooks)
            call = self.graphs.bound(module, call, hooks)
            step = StepContext(call, call, trajectory, session, hooks, now, stopwatch, compiled)
            if not self._prepare(step, module):
                self.store.withdraw(trajectory)
                return None
        except BaseException:
            trajectory.end_call(complete=False)
            raise
        return step

    def _locate(
        self, module: nn.Module, call: Call, session: Session | None, hooks: int
    ) -> Trajectory:
        """Return the call's trajectory, and record the call in it."""
        scope = session.scope if session else self._default_scope
        place = session.place(call.timestep) if session else None
        caller = caller_of(scope, (call.key, hooks), announcement_of(module), place)
        return self.store.locate(call, caller)

    def _prepare(self, step: StepContext, module: nn.Module) -> bool:
        """Find the variants. Decide, or let the prefix run.

        Return False if the call has effects that its graphs do not have.
        """
        for feature in self._features:
            feature.before_capture(step, module)
        step.variants = self.graphs.find(module, step.call, step.hooks)
        if effects := step.variants.program.effects:
            lasting = self.graphs.note_effects(module, step.call, step.variants)
            self.notices.effects(effects, lasting)
            return False
        step.source = self.graphs.source(*(step.stored_as or (step.call, step.variants)))
        step.force()
        for feature in self._features:
            feature.before_step(step)
        if step.variants.plan.signal is None or step.signal is not None:
            self._decide(step, continued=False)
        else:
            step.run_next(step.variants.prefix(step.hoist_level))
        return True

    def decide(self, step: StepContext, results: tuple[Tensor, ...]) -> None:
        """Choose the variant that continues from the ``results`` of the prefix."""
        prefix = step.variants.prefix(step.hoist_level)
        _, _, step.signal, shared = prefix.signature.unpack(results)
        step.shared = tuple(shared)
        for feature in self._features:
            feature.after_prefix(step)
        self._decide(step, continued=True)

    def _decide(self, step: StepContext, continued: bool) -> None:
        """Decide what the step reuses, and choose its variant."""
        trajectory, variants = step.trajectory, step.variants
        if step.signal is not None:  # the policy now sees the change of the signal
            step.now = self._step(trajectory, step.session)
        chosen = decided(self.settings.policy, step, self.notices, self._recorder is not None)
        decision = agreed(variants, chosen, step.call.latent.device)
        reused = variants.reused_by(decision)
        if not reused:
            trajectory.last_refresh = trajectory.step
        for feature in self._features:
            feature.after_decision(step, decision.refresh)
        in_place = step.may_store_in_place and not any(f.needs_values(step) for f in self._features)
        step.variant = variants.variant(reused, continued, step.hoist_level, in_place)
        trajectory.source = step.source
        step.run_next(step.variant)
        self._record(step, decision, step.variant)  # with the FLOPs of inputs that it computed

    def finish(self, step: StepContext, results: tuple[Any, ...]) -> Any:
        """Store the variant's values for the cache. Return the module's output."""
        trajectory, variant = step.trajectory, step.variant
        assert variant is not None
        for feature in self._features:
            results = feature.after_step(step, results)
        outputs, values, _, _ = variant.signature.unpack(results)
        step.store(values)
        # Copy, because the replay of a CUDA graph overwrites the results of earlier replays. A
        # pipeline that calls the model twice a step keeps the first result during the second call.
        copies = [o.clone() if isinstance(o, Tensor) else o for o in outputs]
        output = returned(step.call, copies, step.variants.program)
        returned_values = outputs[: step.variants.program.out_spec.num_leaves]
        trajectory.set_results(step.original_call.latents, returned_values)
        step.stopwatch.stop()  # the last of the call, but for three assignments
        self.totals.compile_ms += step.stopwatch.compile_ms
        trajectory.cache.set_last_use(step.stopwatch.stopped)
        trajectory.end_call(complete=True)
        return output

    def _step(self, trajectory: Trajectory, session: Session | None) -> Step:
        """Return the step as the policy sees it."""
        num_steps, end = (session.num_steps, session.end()) if session else (None, None)
        if num_steps is not None and trajectory.step >= num_steps:
            self.notices.warn_long_run(num_steps)
        return Step(
            trajectory.step,
            num_steps or self.store.expected_steps(trajectory, end),
            trajectory.last_refresh,
            tuple(trajectory.changes),
            length_of(trajectory.position),
        )

    def _record(self, step: StepContext, decision: Decision, variant: Variant) -> None:
        """Record the step in its run, for the report."""
        run = step.trajectory.run
        run.add(step.recorded(decision, variant))
        self.totals.calls += 1
        self.totals.refreshes += decision.refresh
        if step.is_last:
            self.notices.warn_short_run(run)
        if not run.listed:
            run.listed = True
            self.runs.append(run)

    def inherit(self, previous: "Engine") -> None:
        """Take over the captures of the same module's previous engine if the roles agree."""
        if self.signature.same_roles(previous.signature):
            self.graphs.inherit(previous.graphs)

    def clear(self) -> None:
        """Drop all trajectories and free their cached values."""
        self.store.clear()

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """Return the variants for ``call``. Capture them if necessary; other threads wait."""
        hooks = self.graphs.hooks.key(module)
        call = self.graphs.kept.added_to(call, module)
        return self.graphs.find(module, self.graphs.bound(module, call, hooks), hooks)

    @property
    def captures(self) -> OrderedDict[CaptureKey, Variants]:
        """The variants of each kind of call."""
        return self.graphs.by_key

    @property
    def recorder(self) -> Recorder | None:
        """The function that receives every step; None if there is none."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        features = (f for f in self._features if not isinstance(f, Recording))
        # Recording is the first feature, because guidance replaces results.
        self._features = (*([Recording(recorder)] if recorder else []), *features)
        self._recorder = recorder

    @contextmanager
    def weights_resident(self) -> Iterator[None]:
        """Return all weights to their devices, and let no call move them during the block."""
        with self.call_lock:
            self.graphs.offload.bring_back()
            yield
