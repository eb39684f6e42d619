"""A draft: a copy of a program's graph that passes rewrite into a variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from torch import Tensor, fx

from fxcache.program import Program, copy_graph


class Property(Enum):
    """A property of a draft that passes require, ensure or break."""

    FUNCTIONAL = "no node writes to an input"
    ALL_NODES = "no node of the program has been removed"
    CACHE_READ = "the graph reads cached values"
    OUTPUTS_FINAL = "the graph has all its outputs"
    OUTPUTS_OWNED = "outputs share no memory with values that later steps read"
    NO_DEAD_NODES = "an output depends on each node"


INITIAL = frozenset({Property.FUNCTIONAL, Property.ALL_NODES})  # of a copy of a program


@dataclass(eq=False)
class Draft:
    """A copy of the program's graph, which passes rewrite.

    Attributes:
        program: The captured model.
        graph: The graph, changed by each pass.
        nodes: The node in ``graph`` for the value of each node of the program. Valid while
            ``Property.ALL_NODES`` holds.
        weights: The weights that the graph reads besides those of the program, by name.
        properties: The properties that hold now.
    """

    program: Program
    graph: fx.Graph
    nodes: dict[fx.Node, fx.Node]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    properties: set[Property] = field(default_factory=lambda: set(INITIAL))

    @classmethod
    def of(cls, program: Program) -> Self:
        """Return an unchanged draft of ``program``."""
        graph, nodes = copy_graph(program.graph)
        return cls(program, graph, nodes)
