"""Signals: the values of a program that policies observe."""

from collections.abc import Callable, Mapping

from torch import fx

from fxcache.analysis.collectives import collectives
from fxcache.errors import CutError
from fxcache.partition.cut import Recomputation, SignalPoint
from fxcache.partition.frontier import Frontier
from fxcache.policies import Signal
from fxcache.program import Role, is_tensor


def find(frontier: Frontier, wanted: tuple[Signal, ...]) -> SignalPoint:
    """Return the first of the ``wanted`` signals that the program has.

    Raises:
        CutError: The program has none of them.
    """
    for kind in wanted:
        if point := FINDERS[kind](frontier):
            return point
    raise CutError(
        f"{frontier.program.model} has no {' and no '.join(s.value for s in wanted)} to observe",
        where="the policy's signal",
        remedy="use a policy that needs no signal: Uniform, NonUniform, TaylorSeer, …",
    )


def modulated_input(frontier: Frontier) -> SignalPoint | None:
    """Return the input of the first layer in the first block, if the timestep modulates it."""
    needs = frontier.needs
    for node in first_block(frontier):
        if node in frontier.costs.nodes and needs.on_latent(node):
            read = next(n for n in node.all_input_nodes if needs.on_latent(n))
            modulated = needs.on(read, Role.TIMESTEP) and is_tensor(read)
            return signal(frontier, Signal.MODULATED_INPUT, read) if modulated else None
    return None


def timestep_embedding(frontier: Frontier) -> SignalPoint | None:
    """Return the last value through which all influence of the timestep on the latent passes."""
    needs = frontier.needs

    def embedding(node: fx.Node) -> bool:
        return needs.on(node, Role.TIMESTEP) and not needs.on_latent(node)

    common = -1
    for node in filter(needs.on_latent, needs.nodes):
        for source in filter(embedding, node.all_input_nodes):
            common &= needs.ancestors(source)
    if common == -1:
        return None
    passed = [n for n in needs.members(common) if embedding(n) and is_tensor(n)]
    computed = any(n in frontier.costs.nodes for n in passed)
    return signal(frontier, Signal.TIMESTEP_EMBEDDING, passed[-1]) if computed else None


def first_block_added(frontier: Frontier) -> SignalPoint | None:
    """Return the value that the first residual block adds to the latent's stream."""
    for path in numbered(frontier):
        for point in frontier.span(path, path):
            read = point.shortcut.leaves if point.shortcut else ()
            if point.along_stream and any(map(frontier.needs.on_latent, read)):
                return signal(frontier, Signal.FIRST_BLOCK, point.value, point.shortcut)
    return None


FINDERS: Mapping[Signal, Callable[[Frontier], SignalPoint | None]] = {
    Signal.MODULATED_INPUT: modulated_input,
    Signal.TIMESTEP_EMBEDDING: timestep_embedding,
    Signal.FIRST_BLOCK: first_block_added,
}


def signal(
    frontier: Frontier, kind: Signal, value: fx.Node, shortcut: Recomputation | None = None
) -> SignalPoint:
    """Return the observed value, with whether it depends on the timestep alone.

    A value that other processes take part in is computed at each step, see ``find_hoisted``.
    """
    needs, others = frontier.needs, (Role.LATENT, Role.CONDITIONING, Role.STATE)
    exchanged = any(collectives(needs.members(needs.ancestors(value))))
    alone = not exchanged and not any(needs.on(value, role) for role in others)
    return SignalPoint(kind, value, shortcut, alone)


def numbered(frontier: Frontier) -> list[str]:
    """Numbered modules with work that depends on the latent, in the order in which they end."""
    last = {path: frontier.needs.index[nodes[-1]] for path, nodes in frontier.modules.items()}
    costing = [
        path
        for path, nodes in frontier.modules.items()
        if path.rpartition(".")[2].isdigit()
        and any(n in frontier.costs.nodes and frontier.needs.on_latent(n) for n in nodes)
    ]
    return sorted(costing, key=last.__getitem__)


def first_block(frontier: Frontier) -> list[fx.Node]:
    """Return the nodes of the first repeated block that the latent passes through."""
    blocks = [stack.blocks[0] for stack in frontier.stacks]
    firsts = [frontier.modules[path] for path in blocks]
    return min(firsts, key=lambda nodes: frontier.needs.index[nodes[0]], default=[])
