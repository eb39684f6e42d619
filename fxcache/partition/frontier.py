"""The possible cuts of a program: skip connections, streams of repeated blocks, module outputs."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

from torch import fx

from fxcache.analysis.additions import blocks_of_additions
from fxcache.analysis.blocks import Stack, nodes_by_module, outermost, stacks
from fxcache.analysis.collectives import process_groups
from fxcache.analysis.cost import Costs, merged, op_name
from fxcache.analysis.dependence import Dependence
from fxcache.partition.cut import SPAN, CachePoint, Cut
from fxcache.partition.region import cache_points
from fxcache.program import Program, is_tensor, module_paths, nbytes_of

Points = tuple[CachePoint, ...]
ENOUGH = 0.5  # a skip connection that saves this share of the FLOPs is preferred to streams


class Frontier:
    """All possible cuts of one program. The cost of each is computed on demand."""

    def __init__(self, program: Program):
        self.program = program
        self.costs = Costs(program)
        self.needs = Dependence(program)
        self.modules = nodes_by_module(program)
        self.full_flops = self.costs.total(self.needs.live_without({}))

    @cached_property
    def process_groups(self) -> tuple[str, ...]:
        """The names of the process groups in which the graph exchanges data."""
        return process_groups(self.needs.nodes)

    @cached_property
    def skips(self) -> list[fx.Node]:
        """The main-branch value at the end of each skip connection, outermost first.

        A skip connection ends at a concatenation of two values that depend on the latent. One of
        them, the main branch, needs all the work that the other one needs, and more. The graph
        reaches the innermost skip connection first, so the order is reversed.
        """
        joins = (n for n in self.program.graph.nodes if op_name(n) == "cat")
        mains = [m for m in map(self._main_branch, joins) if m is not None]
        return list(dict.fromkeys(mains[::-1]))

    def _main_branch(self, join: fx.Node) -> fx.Node | None:
        """The main branch at the concatenation ``join``; None if no skip connection ends there."""
        joined = [n for n in join.all_input_nodes if self.needs.on_latent(n)]
        if len(joined) != 2:
            return None
        first, second = joined
        for main, skip in ((first, second), (second, first)):
            only_skip = self.needs.ancestors(skip) & ~self.needs.ancestors(main)
            only_main = self.needs.ancestors(main) & ~self.needs.ancestors(skip)
            if not only_skip & self._working and only_main & self._working:
                return main
        return None

    @cached_property
    def _working(self) -> int:
        """Mask of the nodes that cost FLOPs."""
        return self.needs.mask(self.costs.nodes)

    @cached_property
    def stacks(self) -> list[Stack]:
        """The outermost stacks of repeated blocks that the latent passes through."""
        blocks = [
            path
            for path, nodes in self.modules.items()
            if path.rpartition(".")[2].isdigit() and any(map(self.needs.on_latent, nodes))
        ]
        return outermost(stacks(blocks))

    @cached_property
    def module_outputs(self) -> dict[str, list[fx.Node]]:
        """By module path, the values that depend on the latent and are read outside the module."""
        outputs: dict[str, list[fx.Node]] = defaultdict(list)
        for node in self.program.graph.nodes:
            readers = [set(module_paths(user)) for user in node.users]
            for path in module_paths(node):
                leaves_module = any(path not in inside for inside in readers)
                if leaves_module and self.needs.on_latent(node):
                    outputs[path].append(node)
        return dict(outputs)

    def name(self, value: fx.Node) -> str:
        """The path of the outermost module whose only output is ``value``, else a unique name."""
        paths = module_paths(value)
        for path in paths:
            if self.module_outputs.get(path) == [value]:
                return path
        return ":".join([*paths[-1:], value.name])

    @cached_property
    def named_values(self) -> dict[str, fx.Node]:
        """Every name that selects a feature cut, and the value that it caches."""
        named = {self.name(value): value for value in self.skips}
        for path, values in self.module_outputs.items():
            if len(values) == 1 and is_tensor(values[0]):
                named[path] = values[0]
        return named

    @cached_property
    def additions(self) -> list[dict[str, list[fx.Node]]]:
        """The blocks of residual streams whose blocks are no modules, by stream and name."""
        return blocks_of_additions(self.needs)

    def nodes_of(self, name: str) -> list[fx.Node]:
        """Return the nodes of a module or of a block of additions; none if there is neither."""
        if name in self.modules:
            return self.modules[name]
        return next((stream[name] for stream in self.additions if name in stream), [])

    def span(self, first: str, last: str) -> Points:
        """The cache points that let a reuse step skip everything from ``first`` to ``last``."""
        return cache_points(self.needs, self.nodes_of(first), self.nodes_of(last))

    def live(
        self, points: Points, also: Iterable[fx.Node] = (), hoisted: Iterable[fx.Node] = ()
    ) -> list[fx.Node]:
        """Return the nodes of a variant that reads ``points`` from the cache.

        Args:
            points: The cache points.
            also: Values that the variant computes in any case, without the cache, because a
                policy observes them.
            hoisted: Values that are inputs of the variant.
        """
        inputs: dict[fx.Node, tuple[fx.Node, ...]] = dict.fromkeys(hoisted, ())
        cached = {point.read_at: point.needed for point in points}
        live = self.needs.live_without(inputs | cached)
        if observed := tuple(also):
            live += self.needs.live_without(inputs, observed)
        return self.needs.members(self.needs.mask(live))

    def feature(self, value: fx.Node) -> Cut:
        """Return the cut that caches ``value`` itself."""
        return self.price((CachePoint(value),), self.name(value))

    def price(self, points: Points, name: str, observed: Iterable[fx.Node] = ()) -> Cut:
        """Return the cut that caches ``points``, with its costs.

        Args:
            points: The cache points.
            name: The name of the cut.
            observed: Values that a reuse step computes in any case, because a policy observes them.
        """
        live = self.live(points, observed)
        by_op = merged([self.costs.of(live), *(p.flops for p in points)])
        return Cut(
            name=name,
            skip_index=self._skip_index(points),
            mode="residual" if any(p.shortcut for p in points) else "feature",
            full_flops=self.full_flops,
            reuse_flops=sum(by_op.values()),
            reuse_flops_by_op=by_op,
            cache_bytes=sum(nbytes_of(p.value) for p in points),
            cached_tensors=len(points),
            blocks_skipped=self._blocks_without(set(live)),
        )

    def _skip_index(self, points: Points) -> int | None:
        """Return the index of the skip connection at ``points``; None if they are not one."""
        is_skip = len(points) == 1 and points[0].shortcut is None and points[0].value in self.skips
        return self.skips.index(points[0].value) if is_skip else None

    def _blocks_without(self, live: set[fx.Node]) -> int:
        """The number of numbered blocks that cost FLOPs and have no costing node in ``live``."""
        blocks = (block for stack in self.stacks for block in stack.blocks)
        costing = [self.costs.nodes & set(self.modules[block]) for block in blocks]
        return sum(bool(nodes) and not nodes & live for nodes in costing)

    def spans(self, starts: Iterable[str]) -> dict[str, Points]:
        """By name, the longest cut along streams that begins at each block of ``starts``."""
        by_name: dict[str, Points] = {}
        for first in starts:
            for last in self._ends(first):
                points = self.span(first, last)
                if points and all(p.along_stream for p in points):
                    by_name[f"{first}{SPAN}{last}"] = points
                    break
        return by_name

    def spans_of_additions(self, starts: int | None = None) -> dict[str, Points]:
        """By name, the longest cut that begins at each of the first ``starts`` additions."""
        by_name: dict[str, Points] = {}
        for stream in self.additions:
            last = next(reversed(stream))
            for first in list(stream)[:starts]:
                points = self.span(first, last)
                if points and all(p.along_stream for p in points):
                    by_name[f"{first}{SPAN}{last}"] = points
        return by_name

    def _ends(self, first: str) -> list[str]:
        """Return the last block of each stack, from the last stack back to that of ``first``."""
        containers = [stack.container for stack in self.stacks]
        start = containers.index(first.rpartition(".")[0])
        return [stack.blocks[-1] for stack in reversed(self.stacks[start:])]

    def cuts(self) -> list[Cut]:
        """Return all cuts that save FLOPs.

        The cuts at skip connections come first, outermost first. If none of them saves half of the
        FLOPs, the cuts along streams follow, longest first, and then those along streams whose
        blocks are no modules.
        """
        candidates = [self.feature(value) for value in self.skips]
        if all(cut.share_saved < ENOUGH for cut in candidates):
            spans = self.spans(block for stack in self.stacks for block in stack.blocks)
            candidates += [self.price(points, name) for name, points in spans.items()]
        if all(cut.share_saved < ENOUGH for cut in candidates):
            spans = self.spans_of_additions()
            candidates += [self.price(points, name) for name, points in spans.items()]
        return [cut for cut in candidates if cut.share_saved > 0]
