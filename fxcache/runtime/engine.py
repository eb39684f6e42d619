"""The state of one optimised module, and the way of one call through it."""

import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import tree_unflatten
from fxcache.capture.capture import capture
from fxcache.errors import FxcacheWarning, ModeError
from fxcache.partition.choose import CutRequest, choose
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.runner import Variants, rewrite
from fxcache.runtime.branch import Branch, Trust
from fxcache.runtime.context import announcement_of
from fxcache.runtime.record import Run, RunStep, Stopwatch
from fxcache.runtime.session import MAX_BRANCHES, Branches, Session, current_session
from fxcache.runtime.values import Values
from fxcache.runtime.watch import rebind, structure, weights
from fxcache.schedule import Decision, Policy, Step
from fxcache.signature import Call, Signature

MAX_SIGNATURES = 8
MAX_KINDS = 256
MAX_KEYS = 16
MAX_RUNS = 16
MANY_SINGLE_CALLS = 4
MAX_RECORDED_STEPS = 4096
TELL_APART = (
    "Tell requests apart with fxcache.session(model, key=...), or keep their tensors from call to "
    "call, one timestep after another."
)
CALLER = 9  # frames from _warn to the line that called the module


@dataclass(frozen=True)
class Settings:
    """What the user asked ``optimize`` for."""

    cut: CutRequest
    policy: Policy
    latent: str | None = None
    dynamic: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Ticket(NamedTuple):
    """One call under way: what to run, on what, and where its results go."""

    variant: fx.GraphModule
    tensors: tuple[Tensor, ...]
    variants: Variants
    branch: Branch | None
    refresh: bool
    stopwatch: Stopwatch


class Engine:
    """Captures, sessions and decisions of one optimised module.

    Kept on the module as one plain object: torch.export puts dicts and lists back to what they
    were before it traced, and a module here would change ``state_dict``.
    """

    def __init__(self, original: type[nn.Module], settings: Settings):
        self.signature = Signature(original, settings.latent, settings.dynamic)
        self.settings = settings
        self.captures: OrderedDict[Hashable, Variants] = OrderedDict()
        self.runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self.unnamed = Branches(Trust.NONE)
        self.named: OrderedDict[Hashable, Branches] = OrderedDict()
        self._specialized: dict[Hashable, frozenset[str]] = {}
        self._values = Values()
        self._structure: list[Any] = []
        self._weights: list[Any] = []
        self._generation = 0  # of the weights: values cached from older ones are stale
        self._lock = threading.RLock()
        self._warned: set[str] = set()

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ticket:
        """Find the call's branch, decide, and say which variant runs on which tensors."""
        call = self.signature.call(args, kwargs)
        require_inference(module, call)
        session = current_session(module)
        branches = session.branches if session else self.unnamed
        branch, starts = branches.locate(call, announcement_of(module))
        if branches.single_calls >= MANY_SINGLE_CALLS:
            self._warn("call after call starts a run: its tensors are made anew each time")
        if branches.crowded:
            self._warn(f"more than {MAX_BRANCHES} requests take turns, and push each other out")
        with self._lock:
            if starts:
                self._notice_changes(module)
            variants = self._captured(module, call)
            source = (variants, self._generation, *varying(call, variants))
        decision = self._decide(branch, source, session)
        stopwatch = Stopwatch(call.latent.device)
        if branch is not None:
            cut = variants.plan.cut
            flops = cut.full_flops if decision.refresh else cut.reuse_flops
            self._record(branch, RunStep(decision, stopwatch, flops, cut.full_flops))
            branch.source = source
        if decision.refresh or branch is None:
            return Ticket(variants.full, call.tensors, variants, branch, True, stopwatch)
        tensors = call.tensors + branch.cache.buffers
        return Ticket(variants.cached_skip, tensors, variants, branch, False, stopwatch)

    def finish(self, ticket: Ticket, results: tuple[Any, ...]) -> Any:
        """Keep what a refresh computed at the cut; give the module's own kind of output back."""
        variants, branch = ticket.variants, ticket.branch
        if branch is not None:
            if ticket.refresh:
                branch.cache.write(results[variants.num_outputs :])
            branch.complete = True
        ticket.stopwatch.stop()
        outputs = list(results[: variants.num_outputs])
        return tree_unflatten(outputs, variants.program.out_spec)

    def capture(self, module: nn.Module, call: Call) -> Variants:
        """The variants for ``call``, captured now if need be; other threads' calls wait."""
        with self._lock:
            return self._captured(module, call)

    def _captured(self, module: nn.Module, call: Call) -> Variants:
        key = self._key(call)
        variants = self.captures.get(key)
        fixed = variants is not None and not variants.program.sizes.admit(call.tensors)
        if fixed:  # a size that the graph does not leave open: a capture of its own
            key = (key, *(t.shape for t in call.tensors))
            variants = self.captures.get(key)
        if variants is not None:
            self.captures.move_to_end(key)
            return variants
        program = capture(module, self.signature, call, fixed)
        variants = rewrite(program, choose(Frontier(program), self.settings.cut), call.describe())
        self._specialized[call.key] = self._read(call) | program.specialized
        self._keep(key if fixed else self._key(call), variants, structure(module))
        return variants

    def _key(self, call: Call) -> Hashable:
        """What a capture for ``call`` is kept under: its kind, and the values it depends on."""
        paths = self._read(call)
        if not paths:
            return call.key
        tensors = call.by_path().items()
        return call.key, tuple(self._values.number(t) for path, t in tensors if path in paths)

    def _read(self, call: Call) -> frozenset[str]:
        """The inputs whose values captures for calls of this kind depend on."""
        return self._specialized.get(call.key, frozenset())

    def _keep(self, key: Hashable, variants: Variants, now: list[Any]) -> None:
        if now != self._structure:  # captures of another state of the model
            self.captures.clear()
            self._structure = now
        if len(self._specialized) > MAX_KINDS:
            self._specialized.clear()
        self.captures[key] = variants
        if len(self.captures) > MAX_SIGNATURES:
            self.captures.popitem(last=False)
            self._warn(
                f"more than {MAX_SIGNATURES} kinds of call (shapes, dtypes, options) take turns, "
                "and each is captured again when it comes back",
                "Call with fewer shapes, or leave sizes open: optimize(dynamic=...).",
            )

    def _notice_changes(self, module: nn.Module) -> None:
        """At the start of a run: forget captures of a changed model, values of changed weights."""
        if self.captures and structure(module) != self._structure:
            self.captures.clear()
        now = weights(module)
        if now == self._weights:
            return
        self._weights = now
        self._generation += 1
        for variants in self.captures.values():
            rebind(variants.full, module)
            rebind(variants.cached_skip, module)

    def _decide(self, branch: Branch | None, source: object, session: Session | None) -> Decision:
        if branch is None:
            self._warn(
                "nothing identifies the caller of this model: no conditioning tensor and no "
                "timesteps tensor that its calls share"
            )
            return Decision(True, "caller unknown")
        if branch.doubt:
            self._warn(f"the caller of this model cannot be told for certain: {branch.doubt}")
        if branch.forced:
            return Decision(True, branch.forced)
        if branch.source != source:
            return Decision(True, "nothing cached for such inputs and weights")
        num_steps = session.num_steps if session else None
        return self.settings.policy.decide(Step(branch.step, num_steps or branch.expected_steps))

    def _record(self, branch: Branch, step: RunStep) -> None:
        if len(branch.run.steps) < MAX_RECORDED_STEPS:
            branch.run.steps.append(step)
        if not branch.run.listed:
            branch.run.listed = True
            self.runs.append(branch.run)

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
