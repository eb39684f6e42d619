"""Hoisting: computes values that do not depend on the latent when a run begins."""

from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from fxcache._torch import version_counter
from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.rewrite.variants import NOTHING, Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.features.timestep_table import (
    MAX_ROWS,
    TimestepHistory,
    TimestepTable,
    expected_timesteps,
    make_table,
)
from fxcache.runtime.notices import Notices
from fxcache.runtime.offload import Offload
from fxcache.runtime.settings import Settings
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.position import Number, Place, Position, position_of
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef
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
    values: tuple[Tensor, ...] = ()
    flops: int = 0
    fallback_reason: tuple[str, str] | None = None


class Prologue:
    """The hoisted values of one run for one kind of call, with references to their sources.

    Each run computes them again, because torch does not count every write (``tensor.data``).

    Attributes:
        run: The run that the values are for.
        per_run: The values that depend on the conditioning alone.
        table: The values by timestep; None if there is no table.
        unavailable: Whether no table can be made at all.
        changed: Whether conditioning or weights changed during the run.
        flops: The FLOPs that the values took.
    """

    def __init__(
        self,
        step: StepContext,
        captures: Captures,
        history: TimestepHistory | None,
        position: Position,
    ) -> None:
        """Compute the values for the run that begins with ``step``.

        Args:
            step: The step.
            captures: The captures of the module, for their generation and the offloaded weights.
            history: The timesteps of recent runs; None if no table is wanted.
            position: The position of the step, read from its timestep.
        """
        variants, call = step.variants, step.call
        self.run = step.trajectory.run
        self._sources = [TensorRef(step.original_call.tensors[i]) for i in variants.hoisted.inputs]
        self._generation = captures.changes.generation
        parts = (variants.prologue, *([variants.timestep_part] if history else []))
        modules = [part.module for part in parts]
        weights = (w for m in modules for w in (*m.parameters(), *m.buffers()))
        self._weights = [weight for weight in weights if not weight.is_inference()]
        self._versions = list(map(version_counter, self._weights))
        prologue = variants.prologue
        with torch.no_grad():
            values = captures.offload.run(prologue.module, *prologue.signature.bind(call.tensors))
        self.per_run: tuple[Tensor, ...] = tuple(values)
        self.flops = variants.prologue_flops
        self.table: TimestepTable | None = None
        self.unavailable = False
        self.changed = False
        if history:
            self._tabulate(position, call, variants, history, captures.offload)

    def _tabulate(
        self,
        position: Position,
        call: Call,
        variants: Variants,
        history: TimestepHistory,
        offload: Offload,
    ) -> None:
        timesteps = expected_timesteps(call, position, history)
        if timesteps is None:
            self.unavailable = True
        elif rows := len(timesteps.tensor):
            self.table = make_table(call, timesteps, variants, self.per_run, offload)
            self.unavailable = self.table is None
            self.flops += rows * variants.timestep_flops if self.table else 0

    def holds(self, original_call: Call, variants: Variants, generation: int) -> bool:
        """Return whether the values come from this call's conditioning and the current weights."""
        tensors = original_call.tensors
        for source, index in zip(self._sources, variants.hoisted.inputs, strict=True):
            if source.compare(tensors[index]) is not Match.SAME:
                return False
        unwritten = list(map(version_counter, self._weights)) == self._versions
        return unwritten and self._generation == generation

    @property
    def nbytes(self) -> int:
        """The bytes of the values."""
        values = (*self.per_run, *(self.table.values if self.table else ()))
        return sum(value.untyped_storage().nbytes() for value in values)


class Prologues:
    """The slot of a trajectory: a prologue for each kind of call, by its variants."""

    def __init__(self) -> None:
        self.by_variants: WeakKeyDictionary[Variants, Prologue] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """The bytes of all prologues."""
        return sum(prologue.nbytes for prologue in self.by_variants.values())


class Hoisting(Feature):
    """Computes hoisted values, and offloads weights that no step reads."""

    def __init__(self, settings: Settings, captures: Captures, notices: Notices) -> None:
        self._wants_table = settings.hoist is HoistLevel.PER_STEP
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
        row = kept.table.row(step.call, position) if kept.table else None
        if row is None:
            numbered = isinstance(position, Number) and not kept.unavailable
            reason = None if numbered else UNKNOWN
            return HoistedInputs(HoistLevel.PER_RUN, kept.per_run, flops, reason)
        return HoistedInputs(HoistLevel.PER_STEP, kept.per_run + row, flops)

    def _prologue(
        self, step: StepContext, history: TimestepHistory | None, position: Position
    ) -> tuple[Prologue, int]:
        """Return the run's prologue, and the FLOPs that this call spent on it."""
        variants, flops = step.variants, 0
        prologues = step.trajectory.slot(Prologues).by_variants
        kept = prologues.get(variants)
        if kept is None or kept.run is not step.trajectory.run:
            kept = Prologue(step, self._captures, history, position)
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
