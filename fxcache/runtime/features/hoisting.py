"""Hoisting: computes values that do not depend on the latent when a run begins."""

from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.graph_inputs import ByNumber
from fxcache.rewrite.variants import NOTHING, Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.features.prologue import Prologue, Prologues
from fxcache.runtime.features.timesteps import (
    MAX_ROWS,
    TimestepHistory,
)
from fxcache.runtime.notices import Notices
from fxcache.runtime.settings import Settings
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.position import Number, Place, Position, position_of
from fxcache.runtime.trajectory.trajectory import Trajectory

UNTRACKED = (
    "conditioning that was made in inference mode does not count its writes",
    "Sample under torch.no_grad(), or pass hoist=None.",
)
CHANGING = (
    "conditioning or weights, which hoisted values depend on, changed during a run",
    "Keep the prompt's tensors from call to call, or pass hoist=None.",
)
UNKNOWN = (
    "no table of timesteps can be made: the timesteps are neither elements of one tensor of at "
    f"most {MAX_ROWS} nor readable numbers, or the model cannot compute all of them in one batch "
    "(see the log)",
    'Pass elements of the noise scheduler\'s timesteps, or hoist="once".',
)


class HoistedInputs(NamedTuple):
    """The hoisted values that a step's variants take.

    Attributes:
        level: The level of the values.
        values: The values by number.
        flops: The FLOPs that this call spent on them.
        fallback_reason: Why the level is lower than requested, and the remedy.
    """

    level: HoistLevel = HoistLevel.NOTHING
    values: ByNumber = ()
    flops: int = 0
    fallback_reason: tuple[str, str] | None = None


class Hoisting(Feature):
    """Computes hoisted values, and offloads weights that no step reads."""

    def __init__(self, settings: Settings, captures: Captures, notices: Notices) -> None:
        self._wants_table = settings.hoist is HoistLevel.PER_STEP
        self._policy = settings.policy
        self._offloads = settings.cache.offload
        self._captures = captures
        self._requested = settings.hoist_requested
        self._tell = notices.warn if self._requested else notices.note
        # Captures whose calls prevented hoisting that nobody requested. Their steps compute
        # everything from then on, so that compiled runs use two graphs.
        self._prevented: WeakSet[Variants] = WeakSet()
        self._histories: WeakKeyDictionary[Variants, TimestepHistory] = WeakKeyDictionary()
        # The value of ``Offload.moves`` when the weights were last placed for these variants.
        self._placed_at: WeakKeyDictionary[Variants, int] = WeakKeyDictionary()

    def before_step(self, step: StepContext) -> None:
        found = self._found(step)
        if self._offloads:
            self._place_weights(step, found)
        step.hoist_level, step.hoisted, step.hoist_flops = found.level, found.values, found.flops
        if found.fallback_reason:
            effect = "Values that depend on it are computed at every step."
            self._tell(*found.fallback_reason, effect)
            if not self._requested:
                self._prevented.add(step.variants)

    def _place_weights(self, step: StepContext, found: HoistedInputs) -> None:
        """Move the weights that the step reads to their device; offload others as a run starts."""
        offload, variants = self._captures.offload, step.variants
        wanted = HoistLevel.PER_STEP if self._tabulates(variants) else HoistLevel.PER_RUN
        if found.level is not wanted:
            offload.bring_back()
        elif step.starts or self._placed_at.get(variants) != offload.moves:
            read = variants.weights_read(NOTHING, found.level)
            offload.require(read)
            if step.starts:
                offload.move_to_cpu(variants.weights_read(NOTHING, HoistLevel.NOTHING), read)
            self._placed_at[variants] = offload.moves

    def _found(self, step: StepContext) -> HoistedInputs:
        """Return the hoisted values. Compute them if the run has none yet."""
        variants, trajectory, original = step.variants, step.trajectory, step.original_call
        if self._prevented and variants in self._prevented:
            return HoistedInputs()
        if any(original.tensors[i].is_inference() for i in variants.hoisted.inputs):
            return HoistedInputs(fallback_reason=UNTRACKED)
        history = None
        if self._tabulates(variants):
            history = self._histories.setdefault(variants, TimestepHistory())
        position = timestep_position(trajectory, step.call) if history else trajectory.position
        kept, flops = self._prologue(step, history, position)
        if kept.changed:
            return HoistedInputs(fallback_reason=CHANGING)
        if history is None:
            return HoistedInputs(HoistLevel.PER_RUN, kept.per_run, flops)
        history.add(position)
        values = kept.values(step, position)
        if values is None:
            numbered = isinstance(position, Number) and not kept.unavailable
            reason = None if numbered else UNKNOWN
            return HoistedInputs(HoistLevel.PER_RUN, kept.per_run, flops, reason)
        return HoistedInputs(HoistLevel.PER_STEP, values, flops)

    def _prologue(
        self, step: StepContext, history: TimestepHistory | None, position: Position
    ) -> tuple[Prologue, int]:
        """Return the run's prologue, and the FLOPs that this call spent on it."""
        variants, flops = step.variants, 0
        prologues = step.trajectory.slot(Prologues).by_variants
        kept = prologues.get(variants)
        if kept is None or kept.run is not step.trajectory.run:
            kept = Prologue(step, self._captures, history, position, self._policy)
            prologues[variants] = kept
            flops = kept.flops
        valid = kept.holds(step.original_call, variants, self._captures.changes.generation)
        kept.changed = kept.changed or not valid
        return kept, flops

    def _tabulates(self, variants: Variants) -> bool:
        """Return whether a table is wanted, and the variants have values for it."""
        return self._wants_table and bool(variants.hoisted.per_step)


def timestep_position(trajectory: Trajectory, call: Call) -> Position:
    """Return the position read from the timestep: a pipeline's place does not tell its value.

    Reading a timestep that is not an element of a schedule waits for its device.
    """
    if not isinstance(trajectory.position, Place):
        return trajectory.position
    position = position_of(call.timestep)
    trajectory.run.waits += isinstance(position, Number) and position.waited
    return position
