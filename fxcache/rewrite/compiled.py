"""The machine code that runs in place of the graphs of one program."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from fxcache.capture.provided import CompiledGraph, CompiledGraphs


class MachineCodes:
    """The machine code in use. It reads the current weights.

    Args:
        graphs: The compiled graphs of the module.
        warn: Takes the name of a graph that was not compiled.
    """

    def __init__(self, graphs: CompiledGraphs, warn: Callable[[str], None]):
        self.graphs, self._warn = graphs, warn
        self._used: list[CompiledGraph] = []

    def find(self, graph: fx.GraphModule, weights: Mapping[str, Any]) -> CompiledGraph | None:
        """Return machine code for ``graph`` that reads ``weights``; warn if there is none."""
        code = self.graphs.find(graph)
        if code is None:
            self._warn(type(graph).__name__)
        else:
            code.read(weights)
            self._used.append(code)
        return code

    def read(self, weights: Mapping[str, Any]) -> None:
        """Let all code in use read these tensors by their names in the program."""
        for code in self._used:
            code.read(weights)
