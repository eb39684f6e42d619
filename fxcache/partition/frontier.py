"""Where a program can be cut: its skip connections, and the output of any module."""

from collections import defaultdict
from functools import cached_property

from torch import fx

from fxcache.analysis.cost import Costs, op_name
from fxcache.analysis.dependence import Dependence
from fxcache.partition.cut import Cut
from fxcache.program import Program, is_tensor, module_paths, nbytes_of


class Frontier:
    """All cuts of one program, each priced on demand."""

    def __init__(self, program: Program):
        self.program = program
        self.costs = Costs(program)
        self.needs = Dependence(program)
        self.full_flops = self.costs.total(self.needs.live_without(()))

    @cached_property
    def skips(self) -> list[fx.Node]:
        """The main-branch value that meets each skip connection, outermost first.

        A skip connection ends where a concatenation joins two values computed from the latent,
        one of which, the main branch, includes all of the other's work and more. The innermost
        is the first in the graph, so the outermost is the last.
        """
        joins = (n for n in self.program.graph.nodes if op_name(n) == "cat")
        mains = [m for m in map(self._main_branch, joins) if m is not None]
        return mains[::-1]

    def _main_branch(self, join: fx.Node) -> fx.Node | None:
        joined = [n for n in join.all_input_nodes if self.needs.on_latent(n)]
        if len(joined) != 2:
            return None
        first, second = joined
        for main, skip in ((first, second), (second, first)):
            only_skip = self.needs.ancestors(skip) & ~self.needs.ancestors(main)
            only_main = self.needs.ancestors(main) & ~self.needs.ancestors(skip)
            if self._flops(only_skip) == 0 and self._flops(only_main) > 0:
                return main
        return None

    def _flops(self, mask: int) -> int:
        return self.costs.total(self.needs.members(mask))

    @cached_property
    def module_outputs(self) -> dict[str, list[fx.Node]]:
        """For each module path, its values that change with the latent and are read outside it."""
        outputs: dict[str, list[fx.Node]] = defaultdict(list)
        for node in self.program.graph.nodes:
            readers = [set(module_paths(user)) for user in node.users]
            for path in module_paths(node):
                leaves_module = any(path not in inside for inside in readers)
                if leaves_module and self.needs.on_latent(node):
                    outputs[path].append(node)
        return dict(outputs)

    def name(self, value: fx.Node) -> str:
        """Path of the outermost module whose one output is ``value``."""
        paths = module_paths(value)
        for path in paths:
            if self.module_outputs.get(path) == [value]:
                return path
        return ":".join([*paths[-1:], value.name])

    @cached_property
    def named_values(self) -> dict[str, fx.Node]:
        """Every name that a cut can be asked for by, and its value."""
        named = {self.name(value): value for value in self.skips}
        for path, values in self.module_outputs.items():
            if len(values) == 1 and is_tensor(values[0]):
                named[path] = values[0]
        return named

    def live(self, value: fx.Node) -> list[fx.Node]:
        """The nodes of the reuse variant that takes ``value`` from the cache."""
        return self.needs.live_without((value,))

    def price(self, value: fx.Node) -> Cut:
        """The cut at ``value``, with its costs."""
        by_op = self.costs.of(self.live(value))
        return Cut(
            name=self.name(value),
            skip_index=self.skips.index(value) if value in self.skips else None,
            mode="feature",
            full_flops=self.full_flops,
            reuse_flops=sum(by_op.values()),
            reuse_flops_by_op=by_op,
            cache_bytes=nbytes_of(value),
        )

    def cuts(self) -> list[Cut]:
        """The feature cuts at all skip connections, outermost first."""
        return [self.price(value) for value in self.skips]
