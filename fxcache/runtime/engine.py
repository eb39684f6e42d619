"""The state of one optimised module, and the way of one call through it."""

import warnings
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import tree_unflatten
from fxcache.errors import FxcacheWarning, ModeError
from fxcache.rewrite.runner import NOTHING, Variant, Variants
from fxcache.runtime.branch import Branch, Trust
from fxcache.runtime.captures import Captures
from fxcache.runtime.context import announcement_of
from fxcache.runtime.forecast import Weights
from fxcache.runtime.foresight import foreseen
from fxcache.runtime.record import Run, RunStep, Stopwatch
from fxcache.runtime.recorder import Recorder, Seen
from fxcache.runtime.session import MAX_BRANCHES, Branches, Session, current_session
from fxcache.runtime.settings import Settings
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
CALLER = 9  # frames from _warn to the line that called the module


class Ticket(NamedTuple):
    """One call under way: what runs next, on what, and where its results go.

    ``variant``: None while ``module`` is the prefix, whose results ``decide`` waits for.
    ``forced``: why the step refreshes whatever the policy says. ``source``: which capture of which
    weights computes. ``signal``: what the policy observed.
    """

    module: fx.GraphModule
    tensors: tuple[Tensor, ...]
    variants: Variants
    branch: Branch | None
    session: Session | None
    forced: str
    source: object
    stopwatch: Stopwatch
    variant: Variant | None = None
    signal: Tensor | None = None

    @property
    def undecided(self) -> bool:
        return self.variant is None


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
        self._warned: set[str] = set()
        self.recorder: Recorder | None = None  # is shown every step of every trajectory

    @property
    def captures(self) -> OrderedDict[Hashable, Variants]:
        """The variants of each kind of call."""
        return self._captures.held

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ticket:
        """Find the call's branch, and decide which variant runs, or say what to observe first."""
        call = self.signature.call(args, kwargs)
        require_inference(module, call)
        session = current_session(module)
        branches = session.branches if session else self.unnamed
        branch, starts = branches.locate(call, announcement_of(module))
        self._warn_of(branches)
        with self._captures.lock:
            if starts:
                self._captures.notice_changes(module)
            variants = self._captures.find(module, call)
            source = (variants, self._captures.generation, *varying(call, variants))
        forced = self._forced(branch, source)
        stopwatch = Stopwatch(call.latent.device)
        start = Ticket(
            variants.prefix_module if variants.prefix else variants.full,
            call.tensors,
            variants,
            branch,
            session,
            forced,
            source,
            stopwatch,
        )
        if branch is None:
            return start._replace(module=variants.full, variant=variants.variant(NOTHING))
        if variants.prefix is None:
            return self._chosen(start, self._decision(start), continued=False)
        if (signal := foreseen(branch, call, variants)) is not None:
            seen = start._replace(signal=signal)
            return self._chosen(seen, self._observed(seen, signal), continued=False)
        return start

    def decide(self, ticket: Ticket, results: tuple[Tensor, ...]) -> Ticket:
        """After the prefix: which variant continues from what it computed."""
        signal, *shared = results
        seen = ticket._replace(signal=signal)
        decision = self._observed(seen, signal)
        return self._chosen(seen, decision, continued=True, shared=tuple(shared))

    def finish(self, ticket: Ticket, results: tuple[Any, ...]) -> Any:
        """Keep what the variant computed for the cache; give the module's own output back."""
        variants, branch, variant = ticket.variants, ticket.branch, ticket.variant
        if branch is not None and variant is not None:
            branch.cache.write(
                variant.writes,
                results[variants.num_outputs :],
                branch.step,
                variants.order,
                fresh=bool(ticket.forced),
            )
            branch.complete = True
            if self.recorder:
                self.recorder(seen_by(ticket, branch, variant, results))
        ticket.stopwatch.stop()
        outputs = list(results[: variants.num_outputs])
        return tree_unflatten(outputs, variants.program.out_spec)

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        return self._captures.find(module, call)

    def _forced(self, branch: Branch | None, source: object) -> str:
        """Why the call must refresh; empty where the policy is to decide."""
        if branch is None:
            self._warn(
                "nothing identifies the caller of this model: no conditioning tensor and no "
                "timesteps tensor that its calls share"
            )
            return "caller unknown"
        if branch.doubt:
            self._warn(f"the caller of this model cannot be told for certain: {branch.doubt}")
        if not branch.forced and branch.source != source:
            return "nothing cached for such inputs and weights"
        return branch.forced

    def _observed(self, ticket: Ticket, signal: Tensor) -> Decision:
        """The decision once ``signal`` is known, on every step, forced ones too."""
        observes, branch = self.settings.policy.observes, ticket.branch
        assert observes is not None
        assert branch is not None
        if ticket.forced:
            branch.observer.restart()
        branch.observer.note(signal, observes.since)
        branch.run.signal_waits += signal.device.type != "cpu"
        decision = self._decision(ticket)
        if decision.refresh:
            branch.observer.refreshed(signal)
        return decision

    def _decision(self, ticket: Ticket) -> Decision:
        if ticket.forced:
            return Decision(True, ticket.forced)
        return self.settings.policy.decide(self._step(ticket))

    def _step(self, ticket: Ticket) -> Step:
        """The call as its policy is told of it."""
        branch, session = ticket.branch, ticket.session
        assert branch is not None
        num_steps = session.num_steps if session else None
        return Step(
            branch.step,
            num_steps or branch.expected_steps,
            branch.last_refresh,
            tuple(branch.observer.changes),
        )

    def _chosen(
        self,
        ticket: Ticket,
        decision: Decision,
        continued: bool,
        shared: tuple[Tensor, ...] = (),
    ) -> Ticket:
        """The ticket for the variant that carries ``decision`` out."""
        variants, branch = ticket.variants, ticket.branch
        assert branch is not None
        reused = NOTHING if decision.refresh else variants.all - decision.recompute
        with self._captures.lock:
            variant = variants.variant(reused, continued)
        if not reused:
            branch.last_refresh = branch.step
        self._record(
            branch,
            RunStep(decision, ticket.stopwatch, variant.flops, variants.full_flops, variants.all),
        )
        branch.source = ticket.source
        cached = branch.cache.read(variant.reads)
        if variants.order and variant.reads:
            ages = branch.cache.ages(variant.reads, branch.step)
            cached += (self._weights.of(ages, self._step(ticket), cached[0]),)
        tensors = ticket.tensors + shared + cached
        return ticket._replace(module=variant.module, tensors=tensors, variant=variant)

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

    def _warn(self, what: str, remedy: str = TELL_APART) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        warnings.warn(
            f"{what}. Results stay exact, but are no faster. {remedy}",
            FxcacheWarning,
            stacklevel=CALLER,
        )

    @property
    def nbytes(self) -> int:
        """Bytes cached for all sessions."""
        return sum(b.nbytes for b in (self.unnamed, *self.named.values()))

    def branches_named(self, key: Hashable) -> Branches:
        """The branches of the session named ``key``, kept between its openings; bounded."""
        if key not in self.named:
            self.named[key] = Branches(Trust.KEY)
        self.named.move_to_end(key)
        if len(self.named) > MAX_KEYS:
            self.named.popitem(last=False)
        return self.named[key]


def seen_by(ticket: Ticket, branch: Branch, variant: Variant, results: tuple[Any, ...]) -> Seen:
    """The step of ``ticket`` as a recorder is shown it."""
    variants = ticket.variants
    written = dict(zip(variant.writes, results[variants.num_outputs :], strict=True))
    numbers = {name: variants.plan.numbers({name}) for name in variants.plan.groups}
    values = {
        name: tuple(written[n] for n in found)
        for name, found in numbers.items()
        if all(n in written for n in found)
    }
    return Seen(
        branch.run,
        branch.step,
        values,
        first_tensor(results),
        ticket.signal,
        variants,
        variant,
        ticket.tensors,
    )


def first_tensor(results: tuple[Any, ...]) -> Tensor:
    return next(r for r in results if isinstance(r, Tensor))


def varying(call: Call, variants: Variants) -> list[int]:
    """The call's sizes where the graph leaves them open."""
    return [call.tensors[i].shape[dim] for i, dim in variants.program.sizes.expressions]


def require_inference(module: nn.Module, call: Call) -> None:
    """ModeError in train mode, or where the output would carry gradients."""
    require_eval(module)
    if torch.is_grad_enabled() and wants_gradients(module, call):
        raise ModeError(
            "gradients are wanted: grad mode is on, and the model's weights or inputs need them",
            where=f"call of {type(module).__name__}",
            remedy="sample under torch.no_grad() or torch.inference_mode(), or restore() to train",
        )


def require_eval(module: nn.Module) -> None:
    if module.training:
        raise ModeError(
            f"{type(module).__name__} is in train mode",
            where=type(module).__name__,
            remedy="call .eval() on it first; restore() it to train",
        )


def wants_gradients(module: nn.Module, call: Call) -> bool:
    return any(t.requires_grad for t in call.tensors) or any(
        p.requires_grad for p in module.parameters()
    )
