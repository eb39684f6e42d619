"""The variants of one program under one plan. Each is made at its first use."""

import threading
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

from torch import Tensor, fx

from fxcache.analysis.hoisting import Hoisted, HoistLevel
from fxcache.codecs.codec import Coefficients
from fxcache.codecs.format import CacheFormat
from fxcache.partition.cut import CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.buffer_layouts import BufferLayouts
from fxcache.rewrite.compiled import MachineCodes
from fxcache.rewrite.dump import identifier
from fxcache.rewrite.factory import Rewritten, VariantFactory, VariantKey
from fxcache.rewrite.graph_module import graph_module, rebind
from fxcache.rewrite.passes.fuse import Fusion
from fxcache.rewrite.passes.store_in_place import buffers_of
from fxcache.rewrite.variant import TimestepPart, Variant
from fxcache.rewrite.variant_signature import signature_of
from fxcache.step import Decision

NOTHING: frozenset[str] = frozenset()
AS_IS = CacheFormat()


class Variants:
    """The graphs of one program under one plan.

    Attributes:
        frontier: All cuts of the program.
        plan: The cut that was chosen.
        inputs: A description of the captured call, for the report.
        form: The format of cached values.
        program: The captured program.
        made: The variants that were made so far, by key.
        fusions: The places where a kernel could run, by key of the variant.
        weights: The module's current weights, by their names in the program.
        layouts: The layouts of the buffers that variants write.
        codes: Machine code that runs in place of graphs; None if there is none.
    """

    def __init__(
        self,
        frontier: Frontier,
        plan: CutPlan,
        inputs: str,
        form: CacheFormat = AS_IS,
        codes: MachineCodes | None = None,
    ) -> None:
        self.codes = codes
        self._factory = VariantFactory(frontier, plan, form)
        self.frontier, self.plan, self.inputs, self.form = frontier, plan, inputs, form
        self.program = frontier.program
        self.num_outputs = len(self.program.outputs)
        self.made: dict[VariantKey, Variant] = {}
        self.fusions: dict[VariantKey, tuple[Fusion, ...]] = {}
        self.capture_ms = 0.0  # set by who captured the program
        self.weights: Mapping[str, Any] = self.program.weights
        self.modules: list[fx.GraphModule] = []  # all graphs so far
        self._prefixes: dict[HoistLevel, Variant] = {}
        self.layouts = BufferLayouts(self.program.sizes)
        self._lock = threading.RLock()

    def variant(
        self,
        reused: frozenset[str],
        continued: bool = False,
        hoisted: HoistLevel = HoistLevel.NOTHING,
        in_place: bool = False,
    ) -> Variant:
        """Return the variant that reuses these groups of points, and computes and stores the rest.

        Args:
            reused: The names of groups of cache points.
            continued: Whether it continues from the prefix.
            hoisted: The level of the hoisted values that are its inputs.
            in_place: Whether it writes the values to store to buffers, and does not return them.
        """
        key = VariantKey(
            reused, continued, hoisted, in_place and self.plan.may_write_in_place(reused)
        )
        if (made := self.made.get(key)) is not None:
            return made
        with self._lock:
            if key not in self.made:
                name = self.display_name(key)
                rewritten = self._factory.variant(key, name)
                self.fusions[key] = rewritten.fusions
                self.made[key] = self._variant(rewritten, name)
            return self.made[key]

    def reused_by(self, decision: Decision) -> frozenset[str]:
        """Return the groups of cache points that a step reuses after this decision."""
        return NOTHING if decision.refresh else self.all - decision.recompute

    def prefix(self, hoisted: HoistLevel = HoistLevel.NOTHING) -> Variant:
        """Return the graph that computes the signal of the policy."""
        with self._lock:
            if hoisted not in self._prefixes:
                made = self._variant(self._factory.prefix(hoisted), "prefix")
                self._prefixes[hoisted] = made
            return self._prefixes[hoisted]

    @cached_property
    def prologue(self) -> Variant:
        """The graph that computes values that depend on the conditioning alone, once a run."""
        return self._locked(self._factory.prologue, "prologue")

    @cached_property
    def timestep_part(self) -> TimestepPart:
        """The hoisted values that every step reads and that depend on the timestep."""
        return self._timestep_part("timestep part", of_all_steps=True)

    @cached_property
    def refresh_part(self) -> TimestepPart:
        """The hoisted values that depend on the timestep and that reuse steps do not read."""
        return self._timestep_part("refresh part", of_all_steps=False)

    def _timestep_part(self, name: str, of_all_steps: bool) -> TimestepPart:
        numbers = self._factory.timestep_numbers(of_all_steps)
        make = partial(self._factory.timestep_part, numbers)
        return TimestepPart(numbers, self._locked(make, name))

    @cached_property
    def blend(self) -> Variant:
        """The graph that mixes computed and cached values, for training only."""
        return self._locked(self._factory.blend, "blend")

    @cached_property
    def coefficients(self) -> Coefficients | None:
        """The object that computes the coefficients of each step; None if there are none."""
        return self.form.coefficients(self.plan)

    @property
    def hoisted(self) -> Hoisted:
        """The values that can be computed before the steps."""
        return self._factory.hoisted

    def read(self, weights: Mapping[str, Any]) -> None:
        """Let all graphs, including later ones, read these tensors by their names in the program.

        Other threads may run the graphs at the same time.
        """
        with self._lock:
            self.weights = weights
            for module in self.modules:
                rebind(module, weights)
            if self.codes:
                self.codes.read(weights)

    @property
    def full(self) -> fx.GraphModule:
        """The full variant: the original computation, which also returns all values to store."""
        return self.variant(NOTHING).module

    @property
    def cached_skip(self) -> fx.GraphModule:
        """The variant that reads all cache points from the cache."""
        return self.variant(self.all).module

    @cached_property
    def all(self) -> frozenset[str]:
        """The names of all groups of cache points."""
        return frozenset(self.plan.groups)

    @property
    def continued(self) -> bool:
        """Whether steps continue from the prefix, because the signal is unknown before the run."""
        signal = self.plan.signal
        return signal is not None and not signal.of_timestep_alone

    @property
    def full_flops(self) -> int:
        """The FLOPs of a step that reuses nothing."""
        return self.plan.cut.full_flops

    @property
    def prologue_flops(self) -> int:
        """The FLOPs of the prologue."""
        return self._factory.costs.prologue_flops(self.hoisted)

    def weights_read(self, reused: frozenset[str], hoisted: HoistLevel) -> list[Tensor]:
        """Return the distinct weights that a step of this kind reads."""
        points = tuple(self.plan.points[number] for number in self.plan.numbers(reused))
        signal = self.plan.signal
        observed = signal.needed if signal and self.continued else ()
        taken = self._factory.hoisted_at(hoisted)
        return self._factory.costs.weights_read(points, observed, taken, self.weights)

    def display_name(self, key: VariantKey) -> str:
        """Return the name of a variant for display, which is not unique."""
        name = "full" if not key.reused else "cached_skip"
        if key.reused and key.reused != self.all:
            name = f"cached_skip {len(key.reused)} of {len(self.all)}"
        name += " after the prefix" if key.continued else ""
        return name + (" in place" if key.in_place else "")

    def named_graphs(self) -> dict[str, Variant]:
        """Return the graphs that were made so far, by name, each with the most that was hoisted."""
        with self._lock:
            made = sorted(self.made.items(), key=lambda item: item[0].hoisted)
            named = {self.display_name(key): variant for key, variant in made}
            if self._prefixes:
                named["prefix"] = self._prefixes[max(self._prefixes)]
            if "prologue" in vars(self):
                named["prologue"] = self.prologue
            parts = (name for name in ("timestep_part", "refresh_part") if name in vars(self))
            found: dict[str, TimestepPart] = {name: getattr(self, name) for name in parts}
            return named | {name: part.variant for name, part in found.items() if part.numbers}

    def _locked(self, rewrite: Callable[[], Rewritten], name: str) -> Variant:
        with self._lock:
            return self._variant(rewrite(), name)

    def _variant(self, rewritten: Rewritten, name: str) -> Variant:
        """Make a graph callable with the current weights. The thread holds the lock."""
        draft = rewritten.draft
        signature = signature_of(draft.graph, self.program)
        title = identifier(f"{self.program.model}_{name}")
        module = graph_module(draft.graph, self.weights, title, draft.weights)
        self.modules.append(module)
        buffers = buffers_of(draft.graph)
        # A graph that writes to buffers is for torch.compile.
        code = self.codes.find(module, self.weights) if self.codes and not buffers else None
        return Variant(module, signature, rewritten.flops, buffers, code)


def rewrite(
    frontier: Frontier,
    plan: CutPlan,
    inputs: str,
    form: CacheFormat = AS_IS,
    codes: MachineCodes | None = None,
) -> Variants:
    """Return the variants under ``plan``. Those that every run needs are made now."""
    variants = Variants(frontier, plan, inputs, form, codes)
    if plan.signal:
        variants.prefix()
    for reused in (NOTHING, variants.all):
        variants.variant(reused, variants.continued)
    return variants
