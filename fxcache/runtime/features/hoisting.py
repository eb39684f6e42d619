"""Hoisting: what the latent has no part in is computed when a run begins."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache._torch import version_of
from fxcache.analysis.hoisting import HoistLevel
from fxcache.call import Call
from fxcache.rewrite.variants import NOTHING, Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.features.timestep_table import (
    MAX_ROWS,
    TimestepHistory,
    TimestepTable,
    expected,
    tabulated,
)
from fxcache.runtime.notices import Notices
from fxcache.runtime.offload import Offload
from fxcache.runtime.settings import Settings
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.position import Number, Place, Position, position_of
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef
from fxcache.runtime.trajectory.trajectory import Trajectory

UNTRACKED = (
    "conditioning made in inference mode does not tell whether it was written",
    "Sample under torch.no_grad(), or leave hoist= out.",
)
CHANGING = (
    "what hoisted values come from changed in the middle of a run: conditioning, or weights",
    "Keep the prompt's tensors from call to call, or leave hoist= out.",
)
UNKNOWN = (
    "no table of timesteps can be made: they are neither elements of one tensor of at most "
    f"{MAX_ROWS} nor numbers that can be read, or the model cannot be evaluated at all of them at "
    "once (see the log)",
    'Pass elements of the noise scheduler\'s timesteps, or hoist="once".',
)


class HoistedInputs(NamedTuple):
    """Values that a step's variants take, as far as they were asked for and are known.

    Attributes:
        level: Which values they are.
        values: By number.
        flops: FLOPs that were spent on them just now.
        fallback_reason: Why they are fewer than was asked for, and what to do about it.
    """

    level: HoistLevel = HoistLevel.NOTHING
    values: tuple[Tensor, ...] = ()
    flops: int = 0
    fallback_reason: tuple[str, str] | None = None


class Prologue:
    """What the steps of one kind take in one run, guarded by the tensors that it comes from.

    Another run computes it anew: not every write is counted (``tensor.data``), and the start of a
    run is where all others are noticed too.

    Attributes:
        run: The run that it was computed for.
        per_run: Values that depend on the conditioning alone.
        table: Values by timestep, where they were asked for and can be tabulated.
        unavailable: Whether no table can be made at all.
        changed: Whether what it comes from changed in the middle of the run.
        flops: FLOPs that were spent.
    """

    def __init__(
        self,
        step: StepContext,
        captures: Captures,
        history: TimestepHistory | None,
        position: Position,
    ) -> None:
        """Compute it now, for the step that begins a run.

        Args:
            step: The step.
            captures: The module's, for their generation and the offloaded weights.
            history: Of timesteps, where a table of them is wanted.
            position: Where the step stands, as its timestep tells.
        """
        variants, call = step.variants, step.call
        self.run = step.trajectory.run
        self._sources = [TensorRef(step.original_call.tensors[i]) for i in variants.hoisted.inputs]
        self._generation = captures.changes.generation
        parts = (variants.prologue, *([variants.timestep_part] if history else []))
        modules = [part.module for part in parts]
        self._weights = [w for m in modules for w in (*m.parameters(), *m.buffers())]
        self._versions = [version_of(weight) for weight in self._weights]
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
        timesteps = expected(call, position, history)
        if timesteps is None:
            self.unavailable = True
        elif rows := len(timesteps.tensor):
            self.table = tabulated(call, timesteps, variants, self.per_run, offload)
            self.unavailable = self.table is None
            self.flops += rows * variants.timestep_flops if self.table else 0

    def holds(self, original_call: Call, variants: Variants, generation: int) -> bool:
        """Whether it was computed from this call's conditioning and these weights."""
        now = (original_call.tensors[i] for i in variants.hoisted.inputs)
        pairs = zip(self._sources, now, strict=True)
        same = all(source.compare(tensor) is Match.SAME for source, tensor in pairs)
        written = [version_of(weight) for weight in self._weights] != self._versions
        return same and self._generation == generation and not written

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        values = (*self.per_run, *(self.table.values if self.table else ()))
        return sum(value.untyped_storage().nbytes() for value in values)


class Prologues:
    """The slot of a trajectory: by the graphs of each kind of call, what its steps take."""

    def __init__(self) -> None:
        self.by_variants: WeakKeyDictionary[Variants, Prologue] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(prologue.nbytes for prologue in self.by_variants.values())


class Hoisting(Feature):
    """Computes what was asked to be hoisted, and lets weights that no step reads wait elsewhere."""

    def __init__(self, settings: Settings, captures: Captures, notices: Notices) -> None:
        self._wants_table = settings.hoist is HoistLevel.PER_STEP
        self._offloads = settings.cache.offload
        self._captures, self._notices = captures, notices
        self._histories: WeakKeyDictionary[Variants, TimestepHistory] = WeakKeyDictionary()
        # How often weights had moved when they were last where these variants read them.
        self._settled: WeakKeyDictionary[Variants, int] = WeakKeyDictionary()

    def before_step(self, step: StepContext) -> None:
        found = self._found(step)
        if self._offloads:
            self._settle(step, found)
        step.hoist_level, step.hoisted, step.hoist_flops = found.level, found.values, found.flops
        if found.fallback_reason:
            so = "What depends on it is computed at every step."
            self._notices.say(*found.fallback_reason, so)

    def _settle(self, step: StepContext, found: HoistedInputs) -> None:
        """Weights are where the step reads them, and, as runs begin, others on the CPU."""
        offload, variants = self._captures.offload, step.variants
        wanted = HoistLevel.PER_STEP if self._tabulates(variants) else HoistLevel.PER_RUN
        if found.level is not wanted:
            offload.bring_back()
        elif step.starts or self._settled.get(variants) != offload.moves:
            read = variants.weights_read(NOTHING, found.level)
            offload.require(read)
            if step.starts:
                offload.send(variants.weights_read(NOTHING, HoistLevel.NOTHING), read)
            self._settled[variants] = offload.moves

    def _found(self, step: StepContext) -> HoistedInputs:
        """The values; computed now, where the run has not kept them."""
        variants, trajectory, original = step.variants, step.trajectory, step.original_call
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
        history.note(position)
        row = kept.table.row(step.call, position) if kept.table else None
        if row is None:
            numbered = isinstance(position, Number) and not kept.unavailable
            reason = None if numbered else UNKNOWN
            return HoistedInputs(HoistLevel.PER_RUN, kept.per_run, flops, reason)
        return HoistedInputs(HoistLevel.PER_STEP, kept.per_run + row, flops)

    def _prologue(
        self, step: StepContext, history: TimestepHistory | None, position: Position
    ) -> tuple[Prologue, int]:
        """The run's prologue, and the FLOPs that were spent on it just now."""
        variants, flops = step.variants, 0
        prologues = step.trajectory.slot(Prologues).by_variants
        kept = prologues.get(variants)
        if kept is None or kept.run is not step.trajectory.run:
            kept = Prologue(step, self._captures, history, position)
            prologues[variants] = kept
            flops = kept.flops
        held = kept.holds(step.original_call, variants, self._captures.changes.generation)
        kept.changed = kept.changed or not held
        return kept, flops

    def _tabulates(self, variants: Variants) -> bool:
        """Whether a table is wanted, and there is one to make."""
        return self._wants_table and bool(variants.hoisted.per_step)


def timestep_position(trajectory: Trajectory, call: Call) -> Position:
    """The position as the timestep itself tells it: a pipeline's place says nothing of its value.

    A timestep that is no element of a schedule is read, which waits for its device.
    """
    if not isinstance(trajectory.position, Place):
        return trajectory.position
    position = position_of(call.timestep)
    trajectory.run.waits += isinstance(position, Number) and position.waited
    return position
