"""Hoisted values of one trajectory: computed when its request begins, given to every step."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import version_of
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.runner import Variants
from fxcache.runtime.branch import Anchor, Branch, Identity
from fxcache.runtime.foresight import timesteps_of
from fxcache.runtime.position import Element, Position
from fxcache.signature import Call

logger = logging.getLogger("fxcache.runtime")

MAX_ROWS = 250  # of a table: as many steps as papers take


UNTRACKED = (
    "conditioning made in inference mode does not tell whether it was written",
    "Sample under torch.no_grad(), or leave hoist= out.",
)
CHANGING = (
    "what hoisted values come from changed in the middle of a run: conditioning, or weights",
    "Keep the prompt's tensors from call to call, or leave hoist= out.",
)
UNKNOWN = (
    "no table of timesteps can be made: they are not elements of one tensor of at most "
    f"{MAX_ROWS}, or the model cannot be evaluated at all of them at once (see the log)",
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


@dataclass(frozen=True)
class Table:
    """Values by timestep, ``[T, …]`` each, from element ``first`` of a schedule on.

    ``shape``: of the timesteps that they are for.
    """

    schedule: Anchor
    first: int
    shape: torch.Size
    values: tuple[Tensor, ...]

    def row(self, call: Call, position: Position) -> tuple[Tensor, ...] | None:
        """The values for ``call``; None where it is of another schedule, or that was written."""
        if not isinstance(position, Element) or call.timestep.shape != self.shape:
            return None
        schedule, index = position.schedule(), position.offset - self.first
        if schedule is None or self.schedule.compare(schedule) is not Identity.SAME:
            return None
        return tuple(value[index] for value in self.values) if index >= 0 else None


class Prologue:
    """What the calls of one kind are given in one run, guarded by the tensors it comes from.

    ``told``: the caller's own call, where ``call`` is half of it. Another run computes it anew:
    not every write is counted (``tensor.data``), and runs are where all others are noticed too.
    """

    def __init__(
        self,
        branch: Branch,
        call: Call,
        told: Call,
        variants: Variants,
        generation: int,
        table: bool,
    ):
        self.run = branch.run
        self._anchors = [Anchor(told.tensors[i]) for i in variants.hoisted.inputs]
        self._generation = generation
        modules = (variants.prologue, *([variants.timestep_part] if table else []))
        self._weights = [w for m in modules for w in (*m.parameters(), *m.buffers())]
        self._versions = [version_of(weight) for weight in self._weights]
        with torch.no_grad():
            self.once: tuple[Tensor, ...] = variants.prologue(*call.tensors)
        self.table = tabulated(call, branch.position, variants, self.once) if table else None
        self.flops = variants.prologue_flops
        if self.table:
            self.flops += variants.timestep_flops * len(self.table.values[0])
        self.changed = False  # whether what it comes from changed in the middle of the run

    def holds(self, told: Call, variants: Variants, generation: int) -> bool:
        """Whether it was computed from this call's conditioning and these weights."""
        given = (told.tensors[i] for i in variants.hoisted.inputs)
        pairs = zip(self._anchors, given, strict=True)
        same = all(anchor.compare(tensor) is Identity.SAME for anchor, tensor in pairs)
        written = [version_of(weight) for weight in self._weights] != self._versions
        return same and self._generation == generation and not written

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        values = (*self.once, *(self.table.values if self.table else ()))
        return sum(value.untyped_storage().nbytes() for value in values)


def given(
    branch: Branch, call: Call, told: Call, variants: Variants, generation: int, wants_table: bool
) -> Given:
    """What the variants of ``call`` are given; computed now, where the branch has not kept it."""
    if any(told.tensors[i].is_inference() for i in variants.hoisted.inputs):
        return Given(short=UNTRACKED)
    wants_table = wants_table and bool(variants.hoisted.by_step)
    kept, flops = branch.prologues.get(variants), 0
    if kept is None or kept.run is not branch.run:
        kept = Prologue(branch, call, told, variants, generation, wants_table)
        branch.prologues[variants] = kept
        flops = kept.flops
    kept.changed = kept.changed or not kept.holds(told, variants, generation)
    if kept.changed:
        return Given(short=CHANGING)
    if not wants_table:
        return Given(Level.ONCE, kept.once, flops)
    row = kept.table.row(call, branch.position) if kept.table else None
    if row is None:
        return Given(Level.ONCE, kept.once, flops, UNKNOWN)
    return Given(Level.STEP, kept.once + row, flops)


@torch.no_grad()
def tabulated(
    call: Call, position: Position, variants: Variants, once: tuple[Tensor, ...]
) -> Table | None:
    """The values at all timesteps from ``position`` on, in one batched pass.

    None where the run's timesteps are not known, are more than ``MAX_ROWS``, or were made in
    inference mode, which does not tell whether they were written; and where the model cannot be
    evaluated at all of them at once.
    """
    schedule = position.schedule() if isinstance(position, Element) else None
    if not isinstance(position, Element) or schedule is None or schedule.is_inference():
        return None
    if position.length - position.offset > MAX_ROWS:
        return None
    index = call.timestep_index
    like = call.tensors[index]
    timesteps = timesteps_of(call, position)[position.offset :]
    rows = timesteps.reshape(-1, *[1] * like.dim()).expand(-1, *like.shape)
    tensors = (*call.tensors[:index], rows, *call.tensors[index + 1 :], *once)
    dims = tuple(0 if i == index else None for i in range(len(tensors)))
    try:
        values = torch.vmap(variants.timestep_part, in_dims=dims)(*tensors)
    except (RuntimeError, IndexError) as error:
        logger.warning("no table of timesteps for %s: %s", variants.program.model, error)
        return None
    held = tuple(value.contiguous() for value in values)
    return Table(Anchor(schedule), position.offset, like.shape, held)
