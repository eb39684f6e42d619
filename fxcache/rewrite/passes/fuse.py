"""Fusion: replaces a cache read and the operators that follow it by one kernel.

Codecs annotate the nodes that they insert. Patterns start at these notes.
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
        kernel: The name of the kernel.
        where: The path of the module whose operators it replaces.
        why_not: Why it does not run there; empty if it runs.
    """

    kernel: str
    where: str
    why_not: str = ""


def fuse(device: torch.device, found: list[Fusion]) -> Pass:
    """Return a pass that inserts a kernel wherever one fits.

    Args:
        device: The device on which the graph will run.
        found: Receives all places where a kernel could run, in order.
    """

    def run(draft: Draft) -> None:
        graph = draft.graph
        for pattern in PATTERNS:
            for node in [n for n in graph.nodes if pattern.begins(n)]:
                where, why_not = (module_paths(node) or [""])[-1], ""
                try:
                    if not pattern.begins(node):
                        raise UnfitError("another kernel replaced its input")
                    if device.type not in operators.DEVICES:
                        raise UnfitError(f"no kernel runs on {device.type}")
                    pattern.replace(graph, node)
                except UnfitError as reason:
                    why_not = str(reason)
                found.append(Fusion(pattern.kernel, where, why_not))
            remove_dead(graph)

    return Pass(
        "fuse",
        run,
        requires=frozenset({Property.NO_DEAD_NODES, Property.OUTPUTS_FINAL, Property.FUNCTIONAL}),
        ensures=frozenset({Property.NO_DEAD_NODES}),
    )
