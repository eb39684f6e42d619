"""Hoisting: what the latent has no part in is computed before the steps, and given to variants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import fx

from fxcache._torch import returns_view
from fxcache.analysis.dependence import Dependence
from fxcache.program import (
    Program,
    Role,
    after_inputs,
    copy_graph,
    is_tensor,
    new_input,
    noted,
    output_node,
    remove_dead,
)

# What placeholders of these names are, by their notes:
GIVEN = "given_"  # hoisted, with their numbers
SHARED = "shared_"  # computed by the prefix


class Level(IntEnum):
    """What is given to variants."""

    NOTHING = 0
    ONCE = 1  # what depends on the conditioning alone
    STEP = 2  # and what depends on the timestep besides


@dataclass(frozen=True, eq=False)
class Hoisted:
    """The values of one program that may be given to its variants.

    ``once``: they depend on the conditioning, and neither on the latent nor on the timestep;
    ``by_step``: on the timestep and perhaps the conditioning. ``inputs``: the numbers of the
    conditioning inputs that they depend on.
    """

    once: tuple[fx.Node, ...]
    by_step: tuple[fx.Node, ...]
    inputs: tuple[int, ...]

    def at(self, level: Level) -> tuple[fx.Node, ...]:
        """What is given at ``level``."""
        return ((), self.once, (*self.once, *self.by_step))[level]

    def prologue(self, program: Program) -> fx.Graph:
        """``f(*inputs) -> once``."""
        graph, copied = copy_graph(program.graph)
        return returning(graph, [copied[node] for node in self.once])

    def timestep_part(self, program: Program) -> fx.Graph:
        """``f(*inputs, *once) -> by_step``."""
        graph, copied = copy_graph(program.graph)
        give(graph, self.once, GIVEN, copied)
        return returning(graph, [copied[node] for node in self.by_step])


def hoisted(program: Program, needs: Dependence) -> Hoisted:
    """What can be hoisted: the last values that the latent has no part in, views left in place.

    What is drawn at random is drawn anew at every step, as if the latent had a part in it, and so
    is what comes from state objects, which any step may write to.
    """
    drawn = needs.mask(node for node in needs.nodes if draws(node.target))
    with_latent = [
        n
        for n in needs.nodes
        if needs.on_latent(n) or needs.on(n, Role.STATE) or needs.ancestors(n) & drawn
    ]
    by_step = [n for n in read_by(with_latent) if needs.on(n, Role.TIMESTEP)]
    behind = needs.members(needs.between(program.given(Role.TIMESTEP), by_step))
    once = [
        n
        for n in read_by([*behind, *with_latent])
        if needs.on(n, Role.CONDITIONING) and not needs.on(n, Role.TIMESTEP)
    ]
    used = needs.between(program.given(Role.CONDITIONING), [*once, *by_step])
    numbers = (i for i, node in enumerate(program.placeholders) if used >> needs.index[node] & 1)
    return Hoisted(tuple(once), tuple(by_step), tuple(numbers))


def draws(op: object) -> bool:
    """Whether ``op`` is an operator that draws from a random number generator."""
    return torch.Tag.nondeterministic_seeded in getattr(op, "tags", ())


def read_by(readers: Sequence[fx.Node]) -> list[fx.Node]:
    """The computed tensors that ``readers`` read, perhaps through views, none of them a reader."""
    inside = set(readers)
    sources = (source for node in readers for source in node.all_input_nodes)
    bases = dict.fromkeys(behind_views(source) for source in sources if source not in inside)
    return [b for b in bases if b.op == "call_function" and is_tensor(b)]


def behind_views(node: fx.Node) -> fx.Node:
    """The value that ``node`` is a view of, or a piece."""
    while node.op == "call_function" and node.all_input_nodes:
        source = node.all_input_nodes[0]
        piece = not is_tensor(source) and source.op == "call_function"
        if piece and not returns_view(source.target):
            break
        if not piece and not returns_view(node.target):
            break
        node = source
    return node


def give(
    graph: fx.Graph, nodes: Iterable[fx.Node], prefix: str, copied: dict[fx.Node, fx.Node]
) -> None:
    """Take ``nodes`` as inputs, named by ``prefix`` and number; what only they needed is dead."""
    following = after_inputs(graph)
    for index, node in enumerate(nodes):
        with graph.inserting_before(following):
            given = new_input(graph, f"{prefix}{index}", node)
        given.meta[prefix] = (given, index)
        copied[node].replace_all_uses_with(given)
        copied[node] = given


def given_numbers(graph: fx.Graph) -> tuple[int, ...]:
    """Which hoisted values ``graph`` reads; the placeholders of others are removed."""
    numbers: list[int] = []
    for node in list(graph.nodes):
        if (number := noted(node, GIVEN)) is None:
            continue
        if node.users:
            numbers.extend(number)
        else:
            graph.erase_node(node)
    return tuple(numbers)


def returning(graph: fx.Graph, values: list[fx.Node]) -> fx.Graph:
    """``graph``, which now computes ``values`` alone."""
    output_node(graph).args = (tuple(values),)
    remove_dead(graph)
    return graph
