"""Dependences between nodes. Sets of nodes are bit masks, which stay cheap for large graphs."""

from collections.abc import Iterable, Mapping

from torch import fx

from fxcache.program import Program, Role, output_node


class Dependence:
    """The ancestors of every node of one program."""

    def __init__(self, program: Program):
        self.nodes: list[fx.Node] = list(program.graph.nodes)
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.output = output_node(program.graph)
        self._ancestors: list[int] = []
        for i, node in enumerate(self.nodes):
            mask = 1 << i
            for source in node.all_input_nodes:
                mask |= self._ancestors[self.index[source]]
            self._ancestors.append(mask)
        self._inputs = {role: self.mask(program.placeholders_of(role)) for role in Role}

    def mask(self, nodes: Iterable[fx.Node]) -> int:
        """Return the bit mask of ``nodes``."""
        return sum(1 << self.index[node] for node in set(nodes))

    def ancestors(self, node: fx.Node) -> int:
        """Mask of ``node`` and of all nodes that it is computed from."""
        return self._ancestors[self.index[node]]

    def needs(self, node: fx.Node, source: fx.Node) -> bool:
        """Return whether ``node`` is ``source`` or computed from it."""
        return bool(self.ancestors(node) >> self.index[source] & 1)

    def on_latent(self, node: fx.Node) -> bool:
        """Return whether ``node`` depends on the latent."""
        return self.on(node, Role.LATENT)

    def on(self, node: fx.Node, role: Role) -> bool:
        """Return whether ``node`` depends on an input with this role."""
        return bool(self.ancestors(node) & self._inputs[role])

    def between(self, first: Iterable[fx.Node], last: Iterable[fx.Node]) -> int:
        """Mask of the nodes on all paths from ``first`` to ``last``, including both ends."""
        starts, needed = self.mask(first), 0
        for node in last:
            needed |= self.ancestors(node)
        return self.mask(n for n in self.members(needed) if self.ancestors(n) & starts)

    def live_without(
        self, replaced: Mapping[fx.Node, Iterable[fx.Node]], ends: Iterable[fx.Node] = ()
    ) -> list[fx.Node]:
        """Return the nodes that must be computed if some nodes are not, in graph order.

        Args:
            replaced: The nodes that are not computed, and the nodes that each needs instead.
            ends: The nodes whose values are needed; the outputs if there are none.
        """
        live: set[fx.Node] = set()
        stack = list(ends) or [self.output]
        while stack:
            node = stack.pop()
            if node in replaced:
                stack.extend(n for n in replaced[node] if n not in live)
            elif node not in live:
                live.add(node)
                stack.extend(node.all_input_nodes)
        return [node for node in self.nodes if node in live]

    def members(self, mask: int) -> list[fx.Node]:
        """Return the nodes of ``mask``, in graph order."""
        digits = bin(mask)[:1:-1]
        return [self.nodes[i] for i, digit in enumerate(digits) if digit == "1"]
