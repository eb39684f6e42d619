"""The values that are hoisted out of one run, and what they were computed from."""

from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache._torch import version_counter
from fxcache.call import Call
from fxcache.policies import Policy
from fxcache.rewrite.variants import Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.timestep_table import StepValues, TimestepTable, make_table
from fxcache.runtime.features.timesteps import (
    TimestepHistory,
    expected_timesteps,
    planned_refreshes,
)
from fxcache.runtime.step_context import StepContext
from fxcache.runtime.trajectory.position import Position
from fxcache.runtime.trajectory.tensor_ref import Match, TensorRef


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
        policy: Policy,
    ) -> None:
        """Compute the values for the run that begins with ``step``.

        Args:
            step: The step.
            captures: The captures of the module, for their generation and the offloaded weights.
            history: The timesteps of recent runs; None if no table is wanted.
            position: The position of the step, read from its timestep.
            policy: The policy, which may plan refreshes.
        """
        variants, call = step.variants, step.call
        self.run = step.trajectory.run
        self._sources = [TensorRef(step.original_call.tensors[i]) for i in variants.hoisted.inputs]
        self._generation, self._offload = captures.changes.generation, captures.offload
        tables = (variants.timestep_part, variants.refresh_part) if history else ()
        parts = (variants.prologue, *(part.variant for part in tables))
        modules = [part.module for part in parts]
        weights = (w for m in modules for w in (*m.parameters(), *m.buffers()))
        self._weights = [weight for weight in weights if not weight.is_inference()]
        self._versions = list(map(version_counter, self._weights))
        prologue = variants.prologue
        with torch.no_grad():
            values = self._offload.run(prologue.module, *prologue.signature.bind(call.tensors))
        self.per_run: tuple[Tensor, ...] = tuple(values)
        self.flops = variants.prologue_flops
        self.table: TimestepTable | None = None
        self.unavailable = False
        self.changed = False
        if history:
            self._tabulate(position, step, history, policy)

    def _tabulate(
        self,
        position: Position,
        step: StepContext,
        history: TimestepHistory,
        policy: Policy,
    ) -> None:
        variants, call = step.variants, step.call
        timesteps = expected_timesteps(call, position, history)
        if timesteps is None:
            self.unavailable = True
        elif rows := len(timesteps.tensor):
            one = len(variants.plan.groups) < 2  # a step that reuses one of several reads more
            planned = planned_refreshes(policy, step.now, timesteps) if one else range(rows)
            self.table = make_table(call, timesteps, variants, self.per_run, planned, self._offload)
            self.unavailable = self.table is None
            self.flops += self.table.flops if self.table else 0

    def holds(self, original_call: Call, variants: Variants, generation: int) -> bool:
        """Return whether the values come from this call's conditioning and the current weights."""
        tensors = original_call.tensors
        for source, index in zip(self._sources, variants.hoisted.inputs, strict=True):
            if source.compare(tensors[index]) is not Match.SAME:
                return False
        unwritten = list(map(version_counter, self._weights)) == self._versions
        return unwritten and self._generation == generation

    def values(self, step: StepContext, position: Position) -> StepValues | None:
        """Return the values of a step by number; None if no table has its timestep."""
        row = self.table.row(step.call, position) if self.table else None
        if self.table is None or row is None:
            return None
        return StepValues(self.per_run, self.table, row, partial(self._missing, step))

    def _missing(self, step: StepContext) -> dict[int, Tensor]:
        """Compute the values that only refreshes read, for a refresh that was not planned."""
        part = step.variants.refresh_part
        inputs = part.variant.signature.bind(step.call.tensors, self.per_run)
        with torch.no_grad():
            values = self._offload.run(part.variant.module, *inputs)
        step.hoist_flops += part.variant.flops
        return dict(zip(part.numbers, values, strict=True))

    @property
    def nbytes(self) -> int:
        """The bytes of the values."""
        nbytes = sum(value.untyped_storage().nbytes() for value in self.per_run)
        return nbytes + (self.table.nbytes if self.table else 0)


class Prologues:
    """The slot of a trajectory: a prologue for each kind of call, by its variants."""

    def __init__(self) -> None:
        self.by_variants: WeakKeyDictionary[Variants, Prologue] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """The bytes of all prologues."""
        return sum(prologue.nbytes for prologue in self.by_variants.values())
