"""Modules that bring their programs along, so that nothing is traced."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from fxcache.call import Call
from fxcache.capture.config import CaptureConfig
from fxcache.program import Program


class CompiledGraph(ABC):
    """Machine code that runs in place of one graph."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> tuple[Any, ...]:
        """Return the values that the graph returns.

        Raises:
            FxcacheError: The code was compiled for other inputs.
        """

    @abstractmethod
    def read(self, weights: Mapping[str, Any]) -> None:
        """Let the code read these tensors by their names in the program."""


class CompiledGraphs(ABC):
    """The compiled graphs of a module."""

    @abstractmethod
    def find(self, graph: fx.GraphModule) -> CompiledGraph | None:
        """Return the machine code for a graph; None if it was not compiled."""


class ProvidesPrograms(ABC):
    """A base of modules that have a program for each kind of call that they serve."""

    @property
    @abstractmethod
    def capture_config(self) -> CaptureConfig:
        """The options with which the programs were captured."""

    @abstractmethod
    def program_for(self, call: Call) -> Program:
        """Return the program for ``call``.

        Raises:
            FxcacheError: There is none for this kind of call.
        """

    @property
    def compiled_graphs(self) -> CompiledGraphs | None:
        """The compiled graphs; None if nothing was compiled."""
        return None


def capture_config_of(module: nn.Module) -> CaptureConfig:
    """Return the options of captures of ``module`` if the caller chooses none."""
    return module.capture_config if isinstance(module, ProvidesPrograms) else CaptureConfig()
