"""One call of an optimised module, from its arguments to its results."""

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor, fx

from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.codecs.codec import ReadContext
from fxcache.rewrite.variant_signature import NO_TENSORS
from fxcache.rewrite.variants import Variant, Variants
from fxcache.runtime.record import Stopwatch
from fxcache.runtime.session import Session
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.step import Step

NOTHING_CACHED = "nothing cached for such inputs and weights"


class CFGPhase(Enum):
    """What a step computes of a batch with classifier-free guidance."""

    WHOLE = "all of it"
    BOTH = "both halves of the guidance"  # and it keeps what later steps need
    CONDITIONAL = "the conditional half"


@dataclass(slots=True, eq=False)
class StepContext:
    """A call under way: what is known of it, and what runs next.

    Attributes:
        call: What runs. A feature may have made it from ``original_call``.
        original_call: What the caller passed.
        trajectory: The run that the call belongs to.
        session: The session that was opened around it, if any.
        hooks: The number of the hooks that are set on submodules.
        now: The step, as the policy sees it.
        stopwatch: Runs since the call began.
        variants: The graphs for ``call``.
        compiled: Whether torch.compile compiles what runs.
        stored_as: The call and the graphs that stored values are of; None for the step's own.
        source: What stored values come from: the capture, its weights, and sizes that it leaves
            open. Values of another source are stale.
        forced: Why the step refreshes whatever the policy decides; empty if it need not.
        fresh: Whether nothing is stored that the step could go on from.
        phase: What it computes of a guided batch.
        half: In which part of a guided batch the call is, 0 or 1; None if it is all of it.
        hoist_level: Which values were computed before the step.
        hoisted: These values.
        hoist_flops: FLOPs that were spent on them just now.
        shared: What the prefix computed for the variant.
        signal: What the policy observes.
        variant: What was decided; None before that.
        module: What runs next.
        inputs: What it runs on.
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
    hoisted: tuple[Tensor, ...] = ()
    hoist_flops: int = 0
    shared: tuple[Tensor, ...] = ()
    signal: Tensor | None = None
    variant: Variant | None = None
    module: fx.GraphModule = field(init=False)
    inputs: tuple[Tensor, ...] = field(init=False)

    @property
    def starts(self) -> bool:
        """Whether it is the first of its run."""
        return self.trajectory.step == 0

    def force(self) -> None:
        """Note why the step must refresh, if it must."""
        stale = self.trajectory.source != self.source
        reason = self.trajectory.refresh or (NOTHING_CACHED if stale else "")
        self.fresh = bool(reason)
        self.forced = reason or (self.phase.value if self.phase is CFGPhase.BOTH else "")

    def run_next(self, graph: Variant) -> None:
        """Let ``graph`` run next, on inputs that are bound now: Dynamo sees its module alone."""
        signature, cache = graph.signature, self.trajectory.cache
        coefficients = NO_TENSORS
        if signature.coefficients:
            assert self.variants.coefficients is not None
            read = ReadContext(cache.entries, signature.reads, self.now, self.half)
            coefficients = self.variants.coefficients.at(read)
        self.module = graph.module
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
