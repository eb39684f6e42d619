"""Hoisted values of one trajectory: computed when its request begins, given to every step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx

from fxcache._torch import version_of
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.runner import Variants
from fxcache.runtime.branch import Anchor, Branch, Identity
from fxcache.runtime.foresight import timesteps_of
from fxcache.runtime.position import Element, Position
from fxcache.runtime.record import Run
from fxcache.signature import Call

MAX_ROWS = 250  # of a table: as many steps as papers take


UNTRACKED = (
    "conditioning made in inference mode does not tell whether it was written",
    "Sample under torch.no_grad(), or leave hoist= out.",
)
CHANGING = (
    "conditioning that the latent has no part in changes from step to step",
    "Keep the prompt's tensors from call to call, or leave hoist= out.",
)
UNKNOWN = (
    f"the timesteps are not elements of one tensor of at most {MAX_ROWS}",
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
    """Values by timestep, ``[T, …]`` each, from element ``first`` of a schedule on."""

    schedule: Anchor
    first: int
    values: tuple[Tensor, ...]

    def row(self, position: Position) -> tuple[Tensor, ...] | None:
        """The values at ``position``; None where it is of another schedule, or this was written."""
        if not isinstance(position, Element) or position.offset < self.first:
            return None
        schedule = position.schedule()
        if schedule is None or self.schedule.compare(schedule) is not Identity.SAME:
            return None
        return tuple(value[position.offset - self.first] for value in self.values)


class Prologue:
    """What one trajectory's calls of one kind are given, guarded by the tensors it comes from.

    ``told``: the caller's own call, where ``call`` is half of it.
    """

    def __init__(self, call: Call, told: Call, variants: Variants, generation: int, run: Run):
        self._anchors = [Anchor(told.tensors[i]) for i in variants.hoisted.inputs]
        self._generation = generation
        self._weights = weights_of(variants.prologue)
        self._versions = [version_of(weight) for weight in self._weights]
        with torch.no_grad():
            self.once: tuple[Tensor, ...] = variants.prologue(*call.tensors)
        self.table: Table | None = None
        self.run = run  # the last one that it was used in
        self.sought: Run | None = None  # the last one whose timesteps were looked at
        self.changing = False  # whether the conditioning changed in the middle of that run

    def holds(self, told: Call, variants: Variants, generation: int) -> bool:
        """Whether it was computed from this call's conditioning and these weights."""
        given = (told.tensors[i] for i in variants.hoisted.inputs)
        pairs = zip(self._anchors, given, strict=True)
        same = all(anchor.compare(tensor) is Identity.SAME for anchor, tensor in pairs)
        written = [version_of(weight) for weight in self._weights] != self._versions
        return same and self._generation == generation and not written

    def row(self, call: Call, position: Position, variants: Variants) -> tuple[Tensor, ...] | None:
        """Values for this timestep, from a table made now if need be; None where none can be."""
        row = self.table.row(position) if self.table else None
        if row is None and self.sought is not self.run:
            self.sought = self.run
            self.table = tabulated(call, position, variants, self.once)
            row = self.table.row(position) if self.table else None
        return row

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        values = (*self.once, *(self.table.values if self.table else ()))
        return sum(value.untyped_storage().nbytes() for value in values)


def weights_of(module: fx.GraphModule) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def given(
    branch: Branch, call: Call, told: Call, variants: Variants, generation: int, wants_table: bool
) -> Given:
    """What the variants of ``call`` are given; computed now, where the branch has not kept it."""
    if any(told.tensors[i].is_inference() for i in variants.hoisted.inputs):
        return Given(short=UNTRACKED)
    kept, flops = branch.prologues.get(variants), 0
    if kept is None or not kept.holds(told, variants, generation):
        if kept is not None and kept.run is branch.run:
            kept.changing = True
        else:
            kept = Prologue(call, told, variants, generation, branch.run)
            branch.prologues[variants] = kept
            flops = variants.prologue_flops
    kept.run = branch.run
    if kept.changing:
        return Given(short=CHANGING)
    if not wants_table or not variants.hoisted.by_step:
        return Given(Level.ONCE, kept.once, flops)
    before = kept.table
    row = kept.row(call, branch.position, variants)
    if kept.table is not None and kept.table is not before:
        flops += variants.timestep_flops * len(kept.table.values[0])
    if row is None:
        return Given(Level.ONCE, kept.once, flops, UNKNOWN)
    return Given(Level.STEP, kept.once + row, flops)


@torch.no_grad()
def tabulated(
    call: Call, position: Position, variants: Variants, once: tuple[Tensor, ...]
) -> Table | None:
    """The values at all timesteps from ``position`` on, in one batched pass.

    None where the run's timesteps are not known, are more than ``MAX_ROWS``, or were made in
    inference mode, which does not tell whether they were written.
    """
    schedule = position.schedule() if isinstance(position, Element) else None
    if not isinstance(position, Element) or schedule is None or schedule.is_inference():
        return None
    if position.length - position.offset > MAX_ROWS:
        return None
    index = call.timestep_index
    timesteps = timesteps_of(call, position)[position.offset :]
    like = call.tensors[index]
    rows = timesteps.reshape(-1, *[1] * like.dim()).expand(-1, *like.shape)
    tensors = (*call.tensors[:index], rows, *call.tensors[index + 1 :], *once)
    dims = tuple(0 if i == index else None for i in range(len(tensors)))
    values = torch.vmap(variants.timestep_part, in_dims=dims)(*tensors)
    return Table(Anchor(schedule), position.offset, tuple(v.contiguous() for v in values))
