"""Modules in the graph: the nodes that were traced inside each, and the repeated blocks."""

from collections import defaultdict
from dataclasses import dataclass

from torch import fx

from fxcache.program import Program, module_paths


@dataclass(frozen=True)
class Stack:
    """A container of numbered modules, such as ``transformer_blocks``.

    Attributes:
        container: The path of the container.
        blocks: The paths of the numbered modules, in the order in which they run.
    """

    container: str
    blocks: tuple[str, ...]


def nodes_by_module(program: Program) -> dict[str, list[fx.Node]]:
    """For each module path, the nodes traced inside it. Paths are in the order of first use."""
    nodes: dict[str, list[fx.Node]] = defaultdict(list)
    for node in program.graph.nodes:
        if node.op == "call_function":
            for path in module_paths(node):
                nodes[path].append(node)
    return dict(nodes)


def stacks(paths: list[str]) -> list[Stack]:
    """Return the containers of numbered modules among ``paths``, outer containers first."""
    by_container: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        container, _, name = path.rpartition(".")
        if name.isdigit() and container:
            by_container[container].append(path)
    ordered = [Stack(container, tuple(blocks)) for container, blocks in by_container.items()]
    return sorted(ordered, key=lambda stack: stack.container.count("."))


def outermost(candidates: list[Stack]) -> list[Stack]:
    """Return the stacks that do not lie inside another stack."""
    return [
        s
        for s in candidates
        if not any(s.container.startswith(f"{o.container}.") for o in candidates if o is not s)
    ]
