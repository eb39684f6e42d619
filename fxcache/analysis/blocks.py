"""Modules as the graph shows them: which nodes each was traced to, and which repeat in a row."""

from collections import defaultdict
from dataclasses import dataclass

from torch import fx

from fxcache.program import Program, module_paths


@dataclass(frozen=True)
class Stack:
    """A container of numbered modules, such as ``transformer_blocks``, in the order they run."""

    container: str
    blocks: tuple[str, ...]


def nodes_by_module(program: Program) -> dict[str, list[fx.Node]]:
    """For each module path, in the order of first use, the nodes traced inside it."""
    found: dict[str, list[fx.Node]] = defaultdict(list)
    for node in program.graph.nodes:
        if node.op == "call_function":
            for path in module_paths(node):
                found[path].append(node)
    return dict(found)


def stacks(paths: list[str]) -> list[Stack]:
    """The containers of numbered modules among ``paths``, outer ones before what they contain."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        container, _, name = path.rpartition(".")
        if name.isdigit() and container:
            found[container].append(path)
    ordered = [Stack(container, tuple(blocks)) for container, blocks in found.items()]
    return sorted(ordered, key=lambda stack: stack.container.count("."))


def outermost(found: list[Stack]) -> list[Stack]:
    """Those stacks that lie inside no block of another."""
    return [
        s
        for s in found
        if not any(s.container.startswith(f"{o.container}.") for o in found if o is not s)
    ]
