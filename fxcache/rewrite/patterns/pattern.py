"""The base of patterns: a pattern finds operators that a kernel can replace."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx


class UnfitError(Exception):
    """The reason why a kernel does not fit. It becomes a line of the report."""


@dataclass(frozen=True)
class Pattern:
    """One kernel, and the operators that it replaces.

    Attributes:
        kernel: The name of the kernel and of its folder.
        begins: Returns whether a node may be the first that the kernel replaces.
        replace: Replaces that node and nodes after it by the kernel's operator. Raises UnfitError
            and leaves the graph unchanged if the kernel does not fit.
    """

    kernel: str
    begins: Callable[[fx.Node], bool]
    replace: Callable[[fx.Graph, fx.Node], None]
