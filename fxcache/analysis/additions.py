"""Residual streams that no module shows: chains of additions in the graph.

Blocks need not be modules. A model may call the parts of a block one by one, or compute with
parameters in functions. Its residual stream is in the graph all the same, as ``x + f(x)``.
"""

from dataclasses import dataclass

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.analysis.dependence import Dependence
from fxcache.analysis.streams import same_kind
from fxcache.program import is_tensor, value_of

SHORTEST = 2  # a stream has at least so many additions


@dataclass(frozen=True)
class Chain:
    """Values of one stream.

    Attributes:
        values: The value to which the first branch is added, and the result of each addition.
    """

    values: tuple[fx.Node, ...]

    def branches(self, needs: Dependence) -> list[list[fx.Node]]:
        """Return the nodes that compute each addition from the value before."""
        pairs = zip(self.values, self.values[1:], strict=False)
        return [
            needs.members(needs.ancestors(now) & ~needs.ancestors(before)) for before, now in pairs
        ]


def blocks_of_additions(needs: Dependence) -> list[dict[str, list[fx.Node]]]:
    """Return the blocks of each stream: the nodes of an addition, by the addition's name.

    Streams of equal length that read one another, such as those of video and audio, are one: each
    of its blocks has the nodes of all.
    """
    found: list[dict[str, list[fx.Node]]] = []
    chains = chains_of(needs)
    while chains:
        first, *others = chains
        joined = [first, *(c for c in others if exchange(first, c, needs))]
        chains = [c for c in others if c not in joined]
        branches = zip(*(c.branches(needs) for c in joined), strict=True)
        nodes = [list(dict.fromkeys(n for one in block for n in one)) for block in branches]
        names = [value.name for value in first.values[1:]]
        found.append(dict(zip(names, nodes, strict=True)))
    return found


def chains_of(needs: Dependence) -> list[Chain]:
    """Return the chains of additions that depend on the latent, the longest first."""
    before: dict[fx.Node, fx.Node] = {}
    for node in needs.nodes:
        if (stream := stream_of(node, before, needs)) is not None:
            before[node] = stream
    followed = set(before.values())
    ends = [node for node in before if node not in followed and needs.on_latent(node)]
    chains, taken = [], set[fx.Node]()
    for values in sorted((path_to(end, before) for end in ends), key=len, reverse=True):
        if len(values) > SHORTEST and not taken & set(values[1:]):
            chains.append(Chain(tuple(values)))
            taken |= set(values[1:])
    return chains


def stream_of(node: fx.Node, before: dict[fx.Node, fx.Node], needs: Dependence) -> fx.Node | None:
    """Return the operand of an addition that is the stream; None if there is none.

    It is the operand from which the other one is computed, or the only one that is the result of
    such an addition.
    """
    operands = [n for n in node.args[:2] if isinstance(n, fx.Node) and is_tensor(n)]
    if op_name(node) != "add" or len(set(operands)) != 2:
        return None
    alike = [n for n in operands if same_kind(value_of(n), value_of(node))]
    for stream in alike:
        if all(needs.needs(branch, stream) for branch in operands):
            return stream
    known = [n for n in alike if n in before]
    return known[0] if len(known) == 1 else None


def path_to(end: fx.Node, before: dict[fx.Node, fx.Node]) -> list[fx.Node]:
    """Return the values of the stream up to ``end``."""
    path = [end]
    while path[-1] in before:
        path.append(before[path[-1]])
    return path[::-1]


def exchange(first: Chain, second: Chain, needs: Dependence) -> bool:
    """Return whether two chains of equal length read each other's values."""
    return (
        len(first.values) == len(second.values)
        and needs.needs(first.values[-1], second.values[0])
        and needs.needs(second.values[-1], first.values[0])
    )
