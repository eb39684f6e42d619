"""Hoisted values of one trajectory: computed when its run begins, given to every step."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache._torch import version_of
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.runner import NOTHING, Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.offload import Offload
from fxcache.runtime.settings import Settings
from fxcache.runtime.table import MAX_ROWS, Heard, Table, expected, tabulated
from fxcache.runtime.trajectory.position import Number, Place, Position, position_of
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.signature import Call

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


class Given(NamedTuple):
    """What a call's variants are given: ``values`` by number; ``flops`` spent on them just now.

    ``short``: why it is less than was asked for, and what to do.
    """

    level: Level = Level.NOTHING
    values: tuple[Tensor, ...] = ()
    flops: int = 0
    short: tuple[str, str] | None = None

    def take(self, numbers: tuple[int, ...]) -> tuple[Tensor, ...]:
        return tuple(self.values[number] for number in numbers)


class Prologue:
    """What the calls of one kind are given in one run, guarded by the tensors it comes from.

    ``told``: the caller's own call, where ``call`` is half of it. ``heard``: of timesteps, where a
    table of them is wanted. Another run computes it anew: not every write is counted
    (``tensor.data``), and runs are where all others are noticed too.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        call: Call,
        told: Call,
        variants: Variants,
        captures: Captures,
        heard: Heard | None,
        position: Position,
    ):
        self.run = trajectory.run
        self._anchors = [TensorRef(told.tensors[i]) for i in variants.hoisted.inputs]
        self._generation = captures.generation
        modules = (variants.prologue, *([variants.timestep_part] if heard else []))
        self._weights = [w for m in modules for w in (*m.parameters(), *m.buffers())]
        self._versions = [version_of(weight) for weight in self._weights]
        with torch.no_grad():
            once = captures.offload.run(variants.prologue, *call.tensors)
        self.once: tuple[Tensor, ...] = tuple(once)
        self.flops = variants.prologue_flops
        self.table: Table | None = None
        self.untold = False  # whether no table can be made at all
        if heard:
            self._tabulate(position, call, variants, heard, captures.offload)
        self.changed = False  # whether what it comes from changed in the middle of the run

    def _tabulate(
        self, position: Position, call: Call, variants: Variants, heard: Heard, offload: Offload
    ) -> None:
        timesteps = expected(call, position, heard)
        if timesteps is None:
            self.untold = True
        elif rows := len(timesteps.tensor):
            self.table = tabulated(call, timesteps, variants, self.once, offload)
            self.untold = self.table is None
            self.flops += rows * variants.timestep_flops if self.table else 0

    def holds(self, told: Call, variants: Variants, generation: int) -> bool:
        """Whether it was computed from this call's conditioning and these weights."""
        given = (told.tensors[i] for i in variants.hoisted.inputs)
        pairs = zip(self._anchors, given, strict=True)
        same = all(anchor.compare(tensor) is Match.SAME for anchor, tensor in pairs)
        written = [version_of(weight) for weight in self._weights] != self._versions
        return same and self._generation == generation and not written

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        values = (*self.once, *(self.table.values if self.table else ()))
        return sum(value.untyped_storage().nbytes() for value in values)


class Hoisting:
    """What the option of that name asks for, carried out for all trajectories of one module."""

    def __init__(self, settings: Settings, captures: Captures):
        self._table, self._offloads = settings.hoist is Level.STEP, settings.cache.offload
        self._captures = captures
        self._heard: WeakKeyDictionary[Variants, Heard] = WeakKeyDictionary()
        # How often weights had moved when they were last where these variants read them.
        self._settled: WeakKeyDictionary[Variants, int] = WeakKeyDictionary()

    def given(self, trajectory: Trajectory, call: Call, told: Call, variants: Variants) -> Given:
        """What the variants of ``call`` are given; computed now, where the run has not kept it.

        ``told``: the caller's own call, where ``call`` is half of it.
        """
        begins = trajectory.step == 0
        found = self._found(trajectory, call, told, variants)
        if self._offloads:
            self._settle(variants, found, begins)
        return found

    def _settle(self, variants: Variants, found: Given, begins: bool) -> None:
        """Weights are where the step reads them, and, as runs begin, others on the CPU."""
        offload = self._captures.offload
        if found.level is not (Level.STEP if self._tabulates(variants) else Level.ONCE):
            offload.bring_back()
        elif begins or self._settled.get(variants) != offload.moves:
            read = variants.weights_read(NOTHING, found.level)
            offload.require(read)
            if begins:
                offload.send(variants.weights_read(NOTHING, Level.NOTHING), read)
            self._settled[variants] = offload.moves

    def _found(self, trajectory: Trajectory, call: Call, told: Call, variants: Variants) -> Given:
        if any(told.tensors[i].is_inference() for i in variants.hoisted.inputs):
            return Given(short=UNTRACKED)
        heard = self._heard.setdefault(variants, Heard()) if self._tabulates(variants) else None
        position = timestep_position(trajectory, call) if heard else trajectory.position
        kept, flops = trajectory.prologues.get(variants), 0
        if kept is None or kept.run is not trajectory.run:
            kept = Prologue(trajectory, call, told, variants, self._captures, heard, position)
            trajectory.prologues[variants] = kept
            flops = kept.flops
        kept.changed = kept.changed or not kept.holds(told, variants, self._captures.generation)
        if kept.changed:
            return Given(short=CHANGING)
        if heard is None:
            return Given(Level.ONCE, kept.once, flops)
        heard.note(position)
        row = kept.table.row(call, position) if kept.table else None
        if row is None:
            numbered = isinstance(position, Number) and not kept.untold
            return Given(Level.ONCE, kept.once, flops, None if numbered else UNKNOWN)
        return Given(Level.STEP, kept.once + row, flops)

    def _tabulates(self, variants: Variants) -> bool:
        """Whether a table is wanted, and there is one to make."""
        return self._table and bool(variants.hoisted.by_step)


def timestep_position(trajectory: Trajectory, call: Call) -> Position:
    """The position as the timestep itself tells it: a pipeline's place says nothing of its value.

    A timestep that is no element of a schedule is read, which waits for its device.
    """
    if not isinstance(trajectory.position, Place):
        return trajectory.position
    position = position_of(call.timestep)
    trajectory.run.waits += isinstance(position, Number) and position.waited
    return position
