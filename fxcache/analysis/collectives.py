"""Finds the operators of a graph that exchange data with other processes."""

from collections.abc import Iterable, Iterator

from torch import fx

from fxcache._torch import argument_types, is_collective

GROUP = "group_name"  # the parameter of a collective that names its process group


def collectives(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """Yield the nodes that exchange data with other processes, or wait for an exchange."""
    return (node for node in nodes if is_collective(node.target))


def process_groups(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    """Return the names of the process groups that ``nodes`` exchange data in, in graph order.

    All processes that run the same graph get corresponding groups in the same order.
    """
    found: dict[str, None] = {}
    for node in collectives(nodes):
        names = list(argument_types(node.target))
        passed = dict(zip(names, node.args, strict=False)) | node.kwargs
        if isinstance(name := passed.get(GROUP), str):
            found[name] = None
    return tuple(found)
