"""Makes hoisted values, or values of the prefix, inputs of the graph."""

from collections.abc import Sequence

from torch import fx

from fxcache.graph_inputs import InputKind, Source, add_input, inputs_of
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass


def take_inputs(kind: InputKind, values: Sequence[fx.Node]) -> Pass:
    """Return a pass that replaces ``values``, nodes of the program, by inputs of this ``kind``.

    Before: ``x = embed(text); y = attend(latent, x)``. After: ``y = attend(latent, hoisted_0)``.
    The computation of the values becomes dead.
    """

    def run(draft: Draft) -> None:
        for number, value in enumerate(values):
            name = f"{kind.value}_{number}"
            taken = add_input(draft.graph, name, Source(kind, number), value)
            draft.nodes[value].replace_all_uses_with(taken)
            draft.nodes[value] = taken

    return Pass(f"take {kind.value} values", run, requires=frozenset({Property.ALL_NODES}))


def drop_unread_inputs(kind: InputKind) -> Pass:
    """Return a pass that removes the inputs of this ``kind`` that no node reads."""

    def run(draft: Draft) -> None:
        for node in inputs_of(draft.graph, kind):
            if not node.users:
                draft.graph.erase_node(node)

    return Pass(
        f"drop unread {kind.value} values", run, requires=frozenset({Property.NO_DEAD_NODES})
    )
