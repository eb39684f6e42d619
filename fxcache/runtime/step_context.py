"""The context of one call of an optimised module, from its arguments to its results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from weakref import ref

from torch import Tensor

from fxcache._torch import freezes_inputs
from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.codecs.codec import ReadContext
from fxcache.graph_inputs import ByNumber
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variant_signature import NO_TENSORS
from fxcache.rewrite.variants import Variants
from fxcache.runtime.record import RunStep, Stopwatch
from fxcache.runtime.session import Session
from fxcache.runtime.trajectory.state import expected_steps
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.step import Decision, Step

NOTHING_CACHED = "nothing is cached for these inputs and weights"


class CFGPhase(Enum):
    """The part of a batch with classifier-free guidance that a step computes."""

    WHOLE = "the whole batch"
    BOTH = "both halves of the guidance"  # the difference is kept for later steps
    CONDITIONAL = "the conditional half"


@dataclass(slots=True, eq=False)
class StepContext:
    """The state of a call: what is known about it, and which graph runs next.

    Attributes:
        call: The call that runs. A feature may have derived it from ``original_call``.
        original_call: The call as the caller made it.
        trajectory: The run that the call belongs to.
        session: The session that is open around the call; None if there is none.
        hooks: The number of the current state of the submodules' hooks, see ``Hooks``.
        now: The step, as the policy sees it.
        stopwatch: Measures the time since the call began.
        variants: The graphs for ``call``.
        compiled: Whether torch.compile compiles the graph that runs.
        stored_as: The call and the variants whose values are stored; None for those of the step.
        source: Identifies the capture, its weights and its dynamic sizes. Cached values of another
            source are stale.
        forced: Why the step refreshes regardless of the policy; empty if the policy decides.
        fresh: Whether no cached value may be used, so that histories begin anew.
        phase: The part of a guided batch that the step computes.
        half: The index of the half of a guided batch that the call is; None if it is the whole.
        hoist_level: The level of the values that were computed before the step.
        hoisted: Hoisted values of this level.
        hoist_flops: FLOPs that this call spent on hoisted values.
        shared: The tensors that the prefix passes to the variant.
        signal: The signal that the policy observes.
        variant: The variant that was chosen; None before the decision.
        module: The graph that runs next.
        inputs: The inputs of ``module``.
    """

    call: Call
    original_call: Call
    trajectory: Trajectory
    session: Session | None
    hooks: int
    now: Step
    stopwatch: Stopwatch
    compiled: bool
    variants: Variants = field(init=False)
    stored_as: tuple[Call, Variants] | None = None
    source: object = None
    forced: str = ""
    fresh: bool = False
    phase: CFGPhase = CFGPhase.WHOLE
    half: int | None = None
    hoist_level: HoistLevel = HoistLevel.NOTHING
    hoisted: ByNumber = ()
    hoist_flops: int = 0
    shared: tuple[Tensor, ...] = ()
    signal: Tensor | None = None
    variant: Variant | None = None
    module: Callable[..., tuple[Any, ...]] = field(init=False)
    inputs: tuple[Tensor, ...] = field(init=False)

    @property
    def starts(self) -> bool:
        """Whether the call is the first of its run."""
        return self.trajectory.step == 0

    @property
    def may_store_in_place(self) -> bool:
        """Whether a graph may write to the cache. Graphs to be frozen make constants of buffers."""
        return self.compiled and not freezes_inputs()

    @property
    def is_last(self) -> bool:
        """Whether the session or the schedule says that the run ends with this call.

        The length of an earlier run says nothing: it may be that of an interrupted one.
        """
        length = self.session.num_steps if self.session else None
        return self.now.index + 1 == (length or expected_steps(self.trajectory.state))

    def recorded(self, decision: Decision, variant: Variant) -> RunStep:
        """Return the record of the call, for the report."""
        half = self.phase is CFGPhase.CONDITIONAL
        if not half:
            self.trajectory.full_flops = self.variants.full_flops
        return RunStep(
            decision,
            self.stopwatch,
            variant.flops + self.hoist_flops,
            self.trajectory.full_flops,
            self.variants.all,
            half,
            self.hoist_level,
            ref(self.variants.program),
        )

    def force(self) -> None:
        """Set ``forced`` and ``fresh``: why the step must refresh, if it must."""
        stale = self.trajectory.source != self.source
        reason = self.trajectory.refresh or (NOTHING_CACHED if stale else "")
        self.fresh = bool(reason)
        self.forced = reason or (self.phase.value if self.phase is CFGPhase.BOTH else "")

    def run_next(self, graph: Variant) -> None:
        """Set the graph that runs next, and bind its inputs. Dynamo sees only its module."""
        signature, cache = graph.signature, self.trajectory.cache
        coefficients = NO_TENSORS
        if signature.coefficients:
            assert self.variants.coefficients is not None
            read = ReadContext(cache.entries, signature.reads, self.now, self.half)
            coefficients = self.variants.coefficients.at(read)
        if signature.stores:
            layouts = self.variants.layouts.of(graph, self.call.tensors)
            cache.reserve(layouts, self.trajectory.step, self.source, self.fresh)
        # torch.compile compiles the graph itself, also if there is machine code.
        self.module = graph.module.forward if self.compiled else graph.function
        self.inputs = signature.bind(
            self.call.tensors,
            self.hoisted,
            self.shared,
            cache.entries,
            coefficients,
            cache.moments(signature.moments) if signature.moments else NO_TENSORS,
        )
        if signature.writes:
            cache.release(signature.writes)

    def store(self, values: Mapping[int, Tensor]) -> None:
        """Store the values that the variant returned, or complete those that it wrote itself."""
        assert self.variant is not None
        cache, step, codec = self.trajectory.cache, self.trajectory.step, self.variants.form.codec
        if written := self.variant.signature.stores:
            cache.complete(written, step, codec, self.fresh)
        elif values:
            eager_inputs = None if self.compiled else self.inputs
            cache.write(values, step, codec, self.source, self.fresh, eager_inputs)
