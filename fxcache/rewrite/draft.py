"""A graph on its way from a program to a variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from torch import Tensor, fx

from fxcache.program import Program, copy_graph


class Property(Enum):
    """What passes require of a draft, ensure or break."""

    ALL_NODES = "no node of the program has been removed"
    CACHE_READ = "cached values are read"
    OUTPUTS_FINAL = "all outputs are there"
    OUTPUTS_OWNED = "outputs share no memory with what is kept for later steps"
    NO_DEAD_NODES = "every node is needed by an output"


@dataclass(eq=False)
class Draft:
    """A copy of the program's graph, which passes rewrite.

    Attributes:
        program: The captured model.
        graph: The graph, changed by each pass.
        nodes: From the program's nodes to those that stand for their values in ``graph``. Valid as
            long as ``Property.ALL_NODES`` holds.
        weights: What the graph reads besides the program's weights, by name.
        properties: What holds now.
    """

    program: Program
    graph: fx.Graph
    nodes: dict[fx.Node, fx.Node]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    properties: set[Property] = field(default_factory=lambda: {Property.ALL_NODES})

    @classmethod
    def of(cls, program: Program) -> Self:
        """A draft that nothing has changed yet."""
        graph, nodes = copy_graph(program.graph)
        return cls(program, graph, nodes)
