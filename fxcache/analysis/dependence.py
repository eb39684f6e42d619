"""What needs what: sets of nodes as bit masks, so that thousands of them stay cheap."""

from collections.abc import Iterable

from torch import fx

from fxcache.program import Program, output_node


class Dependence:
    """Ancestors of every node of one program."""

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
        self._latent = 1 << self.index[program.latent]

    def ancestors(self, node: fx.Node) -> int:
        """Mask of ``node`` and of everything it is computed from."""
        return self._ancestors[self.index[node]]

    def on_latent(self, node: fx.Node) -> bool:
        """Whether ``node`` changes with the latent."""
        return bool(self.ancestors(node) & self._latent)

    def live_without(self, cached: Iterable[fx.Node]) -> list[fx.Node]:
        """What the outputs still need once ``cached`` are given: in graph order, those left out."""
        given = set(cached)
        live: set[fx.Node] = set()
        stack = [self.output]
        while stack:
            node = stack.pop()
            if node not in live and node not in given:
                live.add(node)
                stack.extend(node.all_input_nodes)
        return [node for node in self.nodes if node in live]

    def members(self, mask: int) -> list[fx.Node]:
        """The nodes of ``mask``, in graph order."""
        found = []
        while mask:
            lowest = mask & -mask
            found.append(self.nodes[lowest.bit_length() - 1])
            mask ^= lowest
        return found
