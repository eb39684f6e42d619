"""The state of one optimised module, and the way of one call through it."""

import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from fxcache.errors import FxcacheWarning
from fxcache.rewrite.runner import NOTHING, Variants
from fxcache.runtime.branch import Branch, Trust
from fxcache.runtime.captures import Captures
from fxcache.runtime.context import announcement_of
from fxcache.runtime.forecast import Weights
from fxcache.runtime.foresight import foreseen
from fxcache.runtime.guidance import Guidance, Part
from fxcache.runtime.mode import require_inference
from fxcache.runtime.objects import returned
from fxcache.runtime.offload import Offload
from fxcache.runtime.prologue import Given, Hoisting
from fxcache.runtime.record import Run, RunStep, Stopwatch
from fxcache.runtime.recorder import Recorder
from fxcache.runtime.session import MAX_BRANCHES, Branches, Session, current_session
from fxcache.runtime.settings import Settings
from fxcache.runtime.ticket import Ticket, seen_by
from fxcache.runtime.trends import Trends
from fxcache.schedule import Decision, Step
from fxcache.signature import Call, Signature

MAX_KEYS = 16
MAX_RUNS = 16
MANY_SINGLE_CALLS = 4
MAX_RECORDED_STEPS = 4096
TELL_APART = (
    "Tell requests apart with fxcache.session(model, key=...), or keep their tensors from call to "
    "call, one timestep after another."
)
NO_FASTER = "Results stay exact, but are no faster."
CALLER = 9  # frames from _warn to the line that called the module


class Engine:
    """Captures, sessions and decisions of one optimised module.

    Kept on the module as one plain object: torch.export puts dicts and lists back to what they
    were before it traced, and a module here would change ``state_dict``.
    """

    def __init__(self, original: type[nn.Module], settings: Settings):
        self.signature = Signature(original, settings.latent, settings.dynamic)
        self.settings = settings
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.unnamed = Branches(Trust.NONE)
        self.named: OrderedDict[Hashable, Branches] = OrderedDict()
        self._captures = Captures(self.signature, settings, self._warn)
        self._weights = Weights(settings.policy)
        self._hoisting = Hoisting(settings, self._captures) if settings.hoist else None
        self._trends = Trends(settings.correction) if settings.correction else None
        self._guidance = None
        if settings.guidance:
            self._guidance = Guidance(settings.guidance, self.signature, self._captures)
        self._warned: set[str] = set()
        # Calls take turns where one may move weights that another reads.
        self.turn = threading.RLock() if settings.offload else nullcontext()
        self.recorder: Recorder | None = None  # is shown every step of every trajectory

    @property
    def captures(self) -> OrderedDict[Hashable, Variants]:
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
        """Find the call's branch, and decide which variant runs, or say what to observe first."""
        call = self.signature.call(args, kwargs)
        require_inference(module, call)
        session = current_session(module)
        branches = session.branches if session else self.unnamed
        branch, starts = branches.locate(call, announcement_of(module))
        self._warn_of(branches)
        part = self._part(call, branch, session)
        with self._captures.lock:
            if starts:
                self._captures.notice_changes(module)
            call = self._captures.bound(module, call)
            half = None
            if self._guidance and branch and branch.guided and (part is not Part.WHOLE or starts):
                half = self._guidance.half(module, call)
            told = call
            if half and part is Part.HALF:
                call = half.call
            variants = self._captures.find(module, call)
            source = self._source(call, variants)
            if half and part is Part.BOTH:
                source = self._source(half.call, half.variants)
        stopwatch = Stopwatch(call.latent.device)
        ticket = Ticket(variants, call, branch, session, source, stopwatch)
        ticket.part, ticket.half = part, half
        if branch is None:
            self._warn_of_caller()
            self.offload.bring_back()
            ticket.variant = variants.variant(NOTHING)
            return ticket.ready()
        self._force(ticket, branch)
        if self._trends:
            self._trends.require_fitting(branch, call.latent)
        ticket.given = self._given(branch, call, told, variants)
        if variants.plan.signal is None:
            self._choose(ticket, self._decision(ticket), continued=False)
        elif (signal := foreseen(branch, call, variants, self.offload)) is not None:
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
        variants, branch, variant = ticket.variants, ticket.branch, ticket.variant
        outputs, written = results[: variants.num_outputs], results[variants.num_outputs :]
        if branch is not None and variant is not None:
            if self._guidance and ticket.half:
                if ticket.part is Part.WHOLE:
                    self._guidance.require_separable(ticket.half, results)
                elif ticket.part is Part.BOTH:
                    kept = self._guidance.keep(branch, ticket.half, results)
                    written = kept[variants.num_outputs :]
                else:
                    step = self._step(branch, ticket.session)
                    outputs = self._guidance.rebuilt(branch, outputs, step)
            branch.cache.write(
                variant.writes,
                written,
                branch.step,
                variants.form.order,
                fresh=ticket.fresh,
                quantized=variants.form.quantized,
            )
            branch.complete = True
            if self.recorder:
                self.recorder(seen_by(ticket, branch, variant, results))
        ticket.stopwatch.stop()
        return returned(ticket.call, list(map(owned, outputs)), variants.program)

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        return self._captures.find(module, self._captures.bound(module, call))

    def _part(self, call: Call, branch: Branch | None, session: Session | None) -> Part:
        """What the call computes of its batch."""
        if self._guidance is None or branch is None:
            return Part.WHOLE
        part = self._guidance.part(branch, call, self._step(branch, session))
        if not branch.guided:
            self._warn(
                "the batch is not one tensor that holds the same latents twice",
                "Leave guidance= out where there is no classifier-free guidance in one batch.",
                "Both halves are computed at every step.",
            )
        return part

    def _source(self, call: Call, variants: Variants) -> object:
        return (variants, self._captures.generation, *varying(call, variants))

    def _force(self, ticket: Ticket, branch: Branch) -> None:
        """Note why the call must refresh, if it must."""
        if branch.doubt:
            self._warn(f"the caller of this model cannot be told for certain: {branch.doubt}")
        stale = branch.source != ticket.source
        reason = branch.forced or ("nothing cached for such inputs and weights" if stale else "")
        ticket.fresh = bool(reason)
        ticket.forced = reason or (ticket.part.value if ticket.part is Part.BOTH else "")

    def _warn_of_caller(self) -> None:
        self._warn(
            "nothing identifies the caller of this model: no conditioning tensor and no "
            "timesteps tensor that its calls share"
        )

    def _given(self, branch: Branch, call: Call, told: Call, variants: Variants) -> Given:
        """What the latent has no part in, so far as it was asked for and can be known."""
        found = self._hoisting.given(branch, call, told, variants) if self._hoisting else Given()
        if found.short:
            self._warn(*found.short, "What depends on it is computed at every step.")
        return found

    def _observed(self, ticket: Ticket, signal: Tensor) -> Decision:
        """The decision once ``signal`` is known, on every step, forced ones too."""
        observes, branch = self.settings.policy.observes, ticket.branch
        assert observes is not None
        assert branch is not None
        ticket.signal = signal
        if ticket.fresh:
            branch.observer.restart()
        branch.observer.note(signal, observes.since, self.settings.kernels)
        branch.run.signal_waits += signal.device.type != "cpu"
        decision = self._decision(ticket)
        if decision.refresh:
            branch.observer.refreshed(signal)
        return decision

    def _decision(self, ticket: Ticket) -> Decision:
        if ticket.forced:
            return Decision(True, ticket.forced)
        assert ticket.branch is not None
        return self.settings.policy.decide(self._step(ticket.branch, ticket.session))

    def _step(self, branch: Branch, session: Session | None) -> Step:
        """The call as its policy is told of it."""
        num_steps = session.num_steps if session else None
        return Step(
            branch.step,
            num_steps or branch.expected_steps,
            branch.last_refresh,
            tuple(branch.observer.changes),
        )

    def _choose(self, ticket: Ticket, decision: Decision, continued: bool) -> None:
        """Let the variant run that carries ``decision`` out, on what it reads."""
        variants, branch = ticket.variants, ticket.branch
        assert branch is not None
        reused = NOTHING if decision.refresh else variants.all
        if decision.recompute:
            reused -= decision.recompute
        ticket.variant = variant = variants.variant(reused, continued, ticket.given.level)
        if not reused:
            branch.last_refresh = branch.step
        if ticket.part is not Part.HALF:
            branch.full_flops = variants.full_flops
        step = RunStep(
            decision,
            ticket.stopwatch,
            variant.flops + ticket.given.flops,
            branch.full_flops,
            variants.all,
            ticket.part is Part.HALF,
            ticket.given.level,
        )
        self._record(branch, step)
        branch.source = ticket.source
        if not variant.reads:
            return
        cached = branch.cache.read(variant.reads)
        if variants.form.order or variants.form.correction:
            ages = branch.cache.ages(variant.reads, branch.step)
            now = self._step(branch, ticket.session)
            if self._trends:
                half = ticket.half if ticket.part is Part.HALF else None
                part = half.halves.second if half else None
                cached += self._trends.of(variants.plan, variant.reads, ages, now, cached, part)
            else:
                cached += (self._weights.of(ages, now, cached[0]),)
        ticket.cached = cached + branch.cache.moments(variant.moments)

    def _record(self, branch: Branch, step: RunStep) -> None:
        if len(branch.run.steps) < MAX_RECORDED_STEPS:
            branch.run.steps.append(step)
        if not branch.run.listed:
            branch.run.listed = True
            self.runs.append(branch.run)

    def _warn_of(self, branches: Branches) -> None:
        if branches.single_calls >= MANY_SINGLE_CALLS:
            self._warn("call after call starts a run: its tensors are made anew each time")
        if branches.crowded:
            self._warn(f"more than {MAX_BRANCHES} requests take turns, and push each other out")

    def _warn(self, what: str, remedy: str = TELL_APART, so: str = NO_FASTER) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        warnings.warn(
            f"{what}. {so} {remedy}",
            FxcacheWarning,
            stacklevel=CALLER,
        )

    @property
    def nbytes(self) -> int:
        """Bytes cached for all sessions."""
        return sum(b.nbytes for b in (self.unnamed, *self.named.values()))

    @property
    def hoisted_bytes(self) -> int:
        """Bytes of hoisted values kept for all sessions."""
        return sum(b.hoisted_bytes for b in (self.unnamed, *self.named.values()))

    def branches_named(self, key: Hashable) -> Branches:
        """The branches of the session named ``key``, kept between its openings; bounded."""
        if key not in self.named:
            self.named[key] = Branches(Trust.KEY)
        self.named.move_to_end(key)
        if len(self.named) > MAX_KEYS:
            self.named.popitem(last=False)
        return self.named[key]


def owned(output: Any) -> Any:
    """A copy, since a captured CUDA graph overwrites what it returned when any is replayed.

    A pipeline that calls the model twice a step holds the first result over the second call.
    """
    return output.clone() if isinstance(output, Tensor) else output


def varying(call: Call, variants: Variants) -> list[int]:
    """The call's sizes where the graph leaves them open."""
    return [call.tensors[i].shape[dim] for i, dim in variants.program.sizes.expressions]
