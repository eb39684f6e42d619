"""Fusion: cache reads, and the operators that follow them, replaced by one kernel each.

Codecs note on the nodes that they make what these compute; patterns start from there.
"""

from dataclasses import dataclass

import torch

from fxcache import operators
from fxcache.program import module_paths, remove_dead
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass
from fxcache.rewrite.patterns import PATTERNS
from fxcache.rewrite.patterns.pattern import UnfitError


@dataclass(frozen=True)
class Fusion:
    """A place where a kernel could run.

    Attributes:
        kernel: Its name.
        where: The path of the module whose operators it replaces.
        why_not: Why it does not run there; empty if it does.
    """

    kernel: str
    where: str
    why_not: str = ""


def fuse(device: torch.device, found: list[Fusion]) -> Pass:
    """The pass that puts in a kernel wherever one fits.

    Args:
        device: Where the graph will run.
        found: Receives all places where a kernel could run, in order.
    """

    def run(draft: Draft) -> None:
        graph = draft.graph
        for pattern in PATTERNS:
            for node in [n for n in graph.nodes if pattern.begins(n)]:
                where, why_not = (module_paths(node) or [""])[-1], ""
                try:
                    if not pattern.begins(node):
                        raise UnfitError("another kernel computes what it reads")
                    if device.type not in operators.DEVICES:
                        raise UnfitError(f"on {device.type}, ATen's own ops run")
                    pattern.replace(graph, node)
                except UnfitError as reason:
                    why_not = str(reason)
                found.append(Fusion(pattern.kernel, where, why_not))
            remove_dead(graph)

    return Pass(
        "fuse",
        run,
        requires=frozenset({Property.NO_DEAD_NODES, Property.OUTPUTS_FINAL}),
        ensures=frozenset({Property.NO_DEAD_NODES}),
    )
