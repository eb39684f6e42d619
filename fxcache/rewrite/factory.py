"""Makes the graphs of one program under one plan: defines the passes and their order."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, fx

from fxcache.analysis.hoisting import Hoisted, HoistLevel, find_hoisted
from fxcache.codecs.format import CacheFormat
from fxcache.codecs.scale_shift import ScaleShiftLayers, scale_shift
from fxcache.graph_inputs import InputKind, OutputKind
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.program import value_of
from fxcache.rewrite.costs import VariantCosts
from fxcache.rewrite.draft import Draft
from fxcache.rewrite.pass_manager import Pass, PassManager
from fxcache.rewrite.passes.blend import blend
from fxcache.rewrite.passes.clean import own_outputs, remove_dead_nodes
from fxcache.rewrite.passes.fuse import Fusion, fuse
from fxcache.rewrite.passes.read_cache import read_cache
from fxcache.rewrite.passes.return_values import return_values
from fxcache.rewrite.passes.store_in_place import store_in_place
from fxcache.rewrite.passes.take_inputs import drop_unread_inputs, take_inputs
from fxcache.rewrite.passes.write_cache import write_cache
from fxcache.rewrite.prefix import Prefix, find_prefix


class VariantKey(NamedTuple):
    """The key of a variant.

    Attributes:
        reused: The groups of cache points that it reads from the cache.
        continued: Whether it continues from the prefix.
        hoisted: The level of the hoisted values that are its inputs.
        in_place: Whether it writes the values to store to buffers, and does not return them.
    """

    reused: frozenset[str]
    continued: bool = False
    hoisted: HoistLevel = HoistLevel.NOTHING
    in_place: bool = False


class Rewritten(NamedTuple):
    """A rewritten graph, the FLOPs of its step, and the places where a kernel could run."""

    draft: Draft
    flops: int = 0
    fusions: tuple[Fusion, ...] = ()


class VariantFactory:
    """Rewrites one program under one plan."""

    def __init__(self, frontier: Frontier, plan: CutPlan, form: CacheFormat) -> None:
        form.require_match(plan)
        self.frontier, self.plan, self.form = frontier, plan, form
        self.program = frontier.program
        self._adjusted = self._scale_shift_layers()
        self.costs = VariantCosts(frontier, plan, self._adjusted)

    def _scale_shift_layers(self) -> ScaleShiftLayers | None:
        form = self.form.scale_shift
        return scale_shift(self.frontier, self.plan, form) if form else None

    @cached_property
    def hoisted(self) -> Hoisted:
        """The values that can be computed before the steps."""
        return find_hoisted(self.program, self.frontier.needs)

    def hoisted_at(self, level: HoistLevel) -> tuple[fx.Node, ...]:
        """Return the hoisted values of this level. Without hoisting, none are searched for."""
        return self.hoisted.at(level) if level else ()

    def timestep_numbers(self, of_all_steps: bool) -> tuple[int, ...]:
        """Return the numbers of the hoisted values that depend on the timestep.

        Args:
            of_all_steps: Whether to return those that every step reads, or those that a step does
                not read if it reuses all cache points.
        """
        values, points, signal = self.hoisted.per_step, self.plan.points, self.plan.signal
        observed = signal.needed if signal else ()
        live = self.frontier.live(points, observed, self.hoisted_at(HoistLevel.PER_STEP))
        read = {source for node in live for source in node.all_input_nodes}
        read.update(observed, *(point.needed for point in points))
        numbered = enumerate(values, len(self.hoisted.per_run))
        return tuple(number for number, value in numbered if (value in read) is of_all_steps)

    def prefix_at(self, level: HoistLevel) -> Prefix:
        """Return the prefix that computes the signal of the policy."""
        signal = self.plan.signal
        assert signal is not None
        return find_prefix(self.frontier.needs, signal, self.plan.points, self.hoisted_at(level))

    def variant(self, key: VariantKey, name: str) -> Rewritten:
        """Make a step's graph: ``f(user, hoisted, shared, cached, …) -> (results, cached)``."""
        points = self.plan.points
        reads = {number: points[number] for number in self.plan.numbers(key.reused)}
        writes = self._writes(reads)
        prefix = self.prefix_at(key.hoisted) if key.continued else None
        hoisted = self.hoisted_at(key.hoisted)
        fusions: list[Fusion] = []
        passes = [
            take_inputs(InputKind.HOISTED, hoisted),
            *([take_inputs(InputKind.SHARED, prefix.shared)] if prefix else []),
            read_cache(reads, self.form, self._adjusted),
            write_cache(writes),
            *self._cleaned(),
            *([fuse(self._device, fusions)] if self.form.kernels else []),
            drop_unread_inputs(InputKind.HOISTED),
            *([store_in_place(self.form.codec)] if key.in_place else []),
        ]
        draft = self._run(passes, name)
        observed = prefix.signal.needed if prefix else ()
        flops = self.costs.step_flops(reads.values(), writes.values(), observed, hoisted)
        return Rewritten(draft, flops, tuple(fusions))

    def _writes(self, reads: Mapping[int, CachePoint]) -> dict[int, CachePoint]:
        """Return the points whose values a step computes that reads ``reads``."""
        live = set(self.frontier.live(tuple(reads.values())))
        points = enumerate(self.plan.points)
        return {n: p for n, p in points if (n not in reads or p.start) and p.value in live}

    def prefix(self, level: HoistLevel) -> Rewritten:
        """Make the graph of the prefix: ``f(user, hoisted) -> (signal, shared)``."""
        prefix = self.prefix_at(level)
        passes = [
            take_inputs(InputKind.HOISTED, self.hoisted_at(level)),
            return_values(OutputKind.SHARED, prefix.shared, prefix.signal),
            remove_dead_nodes(),
            drop_unread_inputs(InputKind.HOISTED),
        ]
        return Rewritten(self._run(passes, "prefix"))

    def prologue(self) -> Rewritten:
        """Make the graph that runs once a run: ``f(user) -> hoisted``."""
        passes = [return_values(OutputKind.HOISTED, self.hoisted.per_run), remove_dead_nodes()]
        return Rewritten(self._run(passes, "prologue"))

    def timestep_part(self, numbers: Iterable[int]) -> Rewritten:
        """Make a graph that runs once for some timesteps: ``f(user, hoisted) -> hoisted``.

        Args:
            numbers: The numbers of the hoisted values that it computes.
        """
        values = self.hoisted_at(HoistLevel.PER_STEP)
        wanted = tuple(values[number] for number in numbers)
        passes = [
            take_inputs(InputKind.HOISTED, self.hoisted.per_run),
            return_values(OutputKind.HOISTED, wanted),
            remove_dead_nodes(),
        ]
        flops = self.costs.timestep_flops(wanted, self.hoisted)
        return Rewritten(self._run(passes, "timestep part"), flops)

    def blend(self) -> Rewritten:
        """Make the graph that mixes computed and cached values, for training only."""
        passes = [blend(self.plan.groups.values()), *self._cleaned()]
        return Rewritten(self._run(passes, "blend"))

    def _cleaned(self) -> list[Pass]:
        return [remove_dead_nodes(), own_outputs()]

    def _run(self, passes: list[Pass], name: str) -> Draft:
        draft = Draft.of(self.program)
        draft.weights = self._adjusted.weights if self._adjusted else {}
        return PassManager(passes).run(draft, name)

    @cached_property
    def _device(self) -> torch.device:
        latent: Tensor = value_of(self.program.latents[0])
        return latent.device
