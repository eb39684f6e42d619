"""Program and plan -> variants: each is one graph, rewritten, verified and dumped when needed."""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, fx

from fxcache.errors import ModelFileError
from fxcache.partition.cut import CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.program import copy_graph, graph_module, rebind, remove_dead, value_of
from fxcache.rewrite.adjustment import Adjustment, scale_shift
from fxcache.rewrite.blend import blend
from fxcache.rewrite.correction import Correction
from fxcache.rewrite.fuse import Fusion, Moments, fuse, moments_read
from fxcache.rewrite.hoist import GIVEN, Hoisted, Level, give, given_numbers, hoisted
from fxcache.rewrite.prefix import Prefix, prefix_of
from fxcache.rewrite.quantized import Quantized
from fxcache.rewrite.reads import detach_outputs, read
from fxcache.rewrite.verify import verify
from fxcache.rewrite.writes import write

logger = logging.getLogger("fxcache.rewrite")

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Variant:
    """One graph: ``module(*inputs, *given, *shared, *cached, *moments) -> (*outputs, *written)``.

    ``inputs``: the program's, in order. ``given``: hoisted values, those with these numbers.
    ``shared``: what the prefix computed, where the variant continues from it. ``cached``: the
    values of the cache points numbered ``reads``, each followed by its derivatives; ``weights``
    ``[reads, order]`` for these, where the plan is forecast, or one ``trend`` [B, C] for each
    value, where it is corrected. ``moments``: statistics of cached values that kernels ask for.
    After the program's outputs come new values of the points numbered ``writes``. ``flops``: of
    the whole step, the prefix included.
    """

    module: fx.GraphModule
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    flops: int
    given: tuple[int, ...] = ()
    moments: tuple[Moments, ...] = ()


class Kind(NamedTuple):
    """Which groups a variant reuses, whether it continues from the prefix, what it is given."""

    reused: frozenset[str]
    continued: bool = False
    level: Level = Level.NOTHING


class PrefixVariant(NamedTuple):
    """``module(*inputs, *given) -> (signal, *shared)``, and the ``prefix`` that it computes."""

    module: fx.GraphModule
    prefix: Prefix
    given: tuple[int, ...]


@dataclass(frozen=True)
class CacheForm:
    """How values are cached and read back.

    ``order``: of their forecast; ``adjustment``: of what is read; ``correction``: of how it has
    moved since; ``quantized``: how it is kept, None for as it is. ``fuses``: whether kernels read
    it where they fit.
    """

    order: int = 0
    adjustment: Adjustment | None = None
    correction: Correction | None = None
    quantized: Quantized | None = None
    fuses: bool = False


AS_IS = CacheForm()


class Variants:
    """The graphs of one program under one plan, by what they reuse; weights are the module's own.

    ``inputs`` describes the call; ``made``: those made so far, by the groups that they reuse,
    whether they continue from the prefix, and what they are given.
    """

    def __init__(self, frontier: Frontier, plan: CutPlan, inputs: str, form: CacheForm = AS_IS):
        self.frontier, self.plan, self.inputs, self.form = frontier, plan, inputs, form
        self.program = frontier.program
        self.num_outputs = len(self.program.outputs)
        self.adjusted = scale_shift(frontier, plan, form.adjustment) if form.adjustment else None
        self.fusions: dict[str, list[Fusion]] = {}  # by name of the variant
        if form.correction:
            form.correction.require_match(plan)
        if form.quantized:
            form.quantized.require_floats(plan.points)
        self.weights: Mapping[str, Any] = self.program.weights  # as the module holds them now
        self.made: dict[Kind, Variant] = {}
        self._prefixes: dict[Level, PrefixVariant] = {}
        self.modules: list[fx.GraphModule] = []  # the graphs made so far
        self._lock = threading.RLock()

    def variant(
        self, reused: frozenset[str], continued: bool = False, level: Level = Level.NOTHING
    ) -> Variant:
        """The one that reuses the points in these groups, and computes and stores the rest.

        ``continued``: from the prefix. ``level``: what it is given.
        """
        kind = Kind(reused, continued, level)
        if (made := self.made.get(kind)) is not None:
            return made
        with self._lock:
            if kind not in self.made:
                self.made[kind] = self._rewrite(*kind)
            return self.made[kind]

    def read(self, weights: Mapping[str, Any]) -> None:
        """Let all graphs, those made later too, read these tensors under the program's names.

        Other threads may run the graphs meanwhile.
        """
        with self._lock:
            self.weights = weights
            for module in self.modules:
                rebind(module, weights)

    @property
    def full(self) -> fx.GraphModule:
        """``f(*inputs) -> (*outputs, *cached)``: the original computation, which stores all."""
        return self.variant(NOTHING).module

    @property
    def cached_skip(self) -> fx.GraphModule:
        """``f(*inputs, *cached) -> outputs``: with all points taken from the cache."""
        return self.variant(self.all).module

    @cached_property
    def blend(self) -> fx.GraphModule:
        """``f(*inputs, *cached, betas) -> outputs``: everything computed, and mixed with the cache.

        ``betas``: for each group, the share of what is computed. For training only.
        """
        graph, copied = copy_graph(self.program.graph)
        blend(graph, self.plan.groups.values(), copied)
        return self._module(graph, "blend", self.num_outputs)

    @property
    def prologue_flops(self) -> int:
        """FLOPs of the prologue."""
        return self._flops_of(self.hoisted.once)

    @property
    def timestep_flops(self) -> int:
        """FLOPs of the timestep part, for one timestep."""
        return self._flops_of(self.hoisted.by_step, self.hoisted.once)

    def weights_read(self, reused: frozenset[str], level: Level) -> list[Tensor]:
        """The distinct weights that a step reads which reuses these groups and is given so much."""
        points = tuple(self.plan.points[number] for number in self.plan.numbers(reused))
        signal = self.plan.signal
        observed = signal.needed if signal and self.continued else ()
        live = self.frontier.live(points, observed, self._given(level))
        read = (self.weights[str(n.target)] for n in live if n.op == "get_attr")
        return list({id(weight): weight for weight in read if isinstance(weight, Tensor)}.values())

    def _given(self, level: Level) -> tuple[fx.Node, ...]:
        """What is given at ``level``; nothing is looked for where nothing is."""
        return self.hoisted.at(level) if level else ()

    def _flops_of(self, ends: tuple[fx.Node, ...], given: tuple[fx.Node, ...] = ()) -> int:
        if not ends:
            return 0
        live = self.frontier.needs.live_without(dict.fromkeys(given, ()), ends)
        return self.frontier.costs.total(live)

    @property
    def full_flops(self) -> int:
        """FLOPs of a step that reuses nothing."""
        return self.plan.cut.full_flops

    @cached_property
    def all(self) -> frozenset[str]:
        """The names of all groups of cache points."""
        return frozenset(self.plan.groups)

    def prefix(self, level: Level = Level.NOTHING) -> PrefixVariant:
        """Where the policy observes a signal, the part of the program that computes it."""
        with self._lock:
            if level not in self._prefixes:
                self._prefixes[level] = self._prefix(level)
            return self._prefixes[level]

    @cached_property
    def hoisted(self) -> Hoisted:
        """What the latent has no part in."""
        return hoisted(self.program, self.frontier.needs)

    @cached_property
    def prologue(self) -> fx.GraphModule:
        """``f(*inputs) -> hoisted.once``."""
        return self._module(self.hoisted.prologue(self.program), "prologue")

    @cached_property
    def timestep_part(self) -> fx.GraphModule:
        """``f(*inputs, *hoisted.once) -> hoisted.by_step``."""
        return self._module(self.hoisted.timestep_part(self.program), "timestep part")

    @property
    def continued(self) -> bool:
        """Whether steps continue from the prefix: its signal is not known before the run."""
        signal = self.plan.signal
        return signal is not None and not signal.of_timestep_alone

    def _prefix(self, level: Level) -> PrefixVariant:
        assert self.plan.signal is not None
        given = self._given(level)
        prefix = prefix_of(self.frontier.needs, self.plan.signal, self.plan.points, given)
        graph = prefix.graph(self.program, given)
        numbers = given_numbers(graph)
        return PrefixVariant(self._module(graph, "prefix"), prefix, numbers)

    def _rewrite(self, reused: frozenset[str], continued: bool, level: Level) -> Variant:
        reads = self.plan.numbers(reused)
        taken = {number: self.plan.points[number] for number in reads}
        live = set(self.frontier.live(tuple(taken.values())))
        writes = tuple(
            number
            for number, point in enumerate(self.plan.points)
            if number not in taken and point.value in live
        )
        prefix = self.prefix(level).prefix if continued else None
        observed = prefix.signal.needed if prefix else ()
        given = self._given(level)
        computed = self.frontier.live(tuple(taken.values()), observed, given)
        flops = self.frontier.costs.total(computed)
        touched = [*taken.values(), *(self.plan.points[number] for number in writes)]
        flops += sum(sum(point.flops.values()) for point in touched)
        if self.adjusted:
            flops += sum(map(self.adjusted.flops, taken.values()))
        graph, copied = copy_graph(self.program.graph)
        give(graph, given, GIVEN, copied)
        if prefix:
            prefix.continue_in(graph, copied)
        corrected = self.form.correction is not None
        quantized = self.form.quantized
        read(graph, taken, self.form.order, copied, self.adjusted, corrected, quantized)
        write(graph, [self.plan.points[number] for number in writes], copied)
        remove_dead(graph)
        detach_outputs(graph)
        if self.form.fuses:
            device = value_of(self.program.latents[0]).device
            self.fusions[self._name(reused)] = fuse(graph, device)
        numbers = given_numbers(graph)
        name = self._name(reused) + (" after the prefix" if prefix else "")
        module = self._module(graph, name, self.num_outputs)
        return Variant(module, reads, writes, flops, numbers, moments_read(graph))

    def _name(self, reused: frozenset[str]) -> str:
        if not reused:
            return "full"
        return (
            "cached_skip" if reused == self.all else f"cached_skip {len(reused)} of {len(self.all)}"
        )

    def _module(self, graph: fx.Graph, name: str, num_outputs: int = 0) -> fx.GraphModule:
        """``graph`` verified and callable."""
        started = time.perf_counter()
        added = self.adjusted.weights if self.adjusted else {}
        verify(graph, self.program, name, num_outputs, added)
        title = re.sub(r"\W+", "_", f"{self.program.model}_{name}")
        with self._lock:  # read() finds it in the list, or it finds what read() has set
            module = graph_module(graph, self.weights, title, added)
            self.modules.append(module)
        elapsed_ms = 1000 * (time.perf_counter() - started)
        logger.info(
            "%s of %s: %d nodes in %.0f ms", name, self.program.model, len(graph.nodes), elapsed_ms
        )
        if folder := os.environ.get("FXCACHE_DUMP"):
            dump(module, Path(folder), name)
        return module


def rewrite(frontier: Frontier, plan: CutPlan, inputs: str, form: CacheForm = AS_IS) -> Variants:
    """The variants under ``plan``, those that every run needs made at once."""
    variants = Variants(frontier, plan, inputs, form)
    if plan.signal:
        variants.prefix()
    for reused in (NOTHING, variants.all):
        variants.variant(reused, variants.continued)
    return variants


def dump(module: fx.GraphModule, folder: Path, name: str) -> None:
    """Write ``module`` as numbered Python source, comments saying where each line comes from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"cannot write graphs there: {error}",
            where=f"FXCACHE_DUMP={folder}",
            remedy="set FXCACHE_DUMP to a folder that can be made, or unset it",
        ) from error
    numbers = [int(m[1]) for p in folder.iterdir() if (m := re.match(r"(\d+)_", p.name))]
    path = folder / f"{max(numbers, default=-1) + 1:03d}_{type(module).__name__}.py"
    source = module.print_readable(print_output=False, include_device=True)
    path.write_text(f"# {name}\n{source}\n", encoding="utf-8")
