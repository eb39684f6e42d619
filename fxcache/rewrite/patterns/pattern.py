"""What a pattern is: where a kernel can take the place of operators."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx


class UnfitError(Exception):
    """Why a kernel does not fit. It is caught, and becomes a line of the report."""


@dataclass(frozen=True)
class Pattern:
    """One kernel, and the operators that it replaces.

    Attributes:
        kernel: Its name, that of its folder.
        begins: Whether a node may be the first that the kernel replaces.
        replace: Puts the kernel's operator in place of that node and those after it. Raises
            UnfitError, with the graph unchanged, where the kernel does not fit.
    """

    kernel: str
    begins: Callable[[fx.Node], bool]
    replace: Callable[[fx.Graph, fx.Node], None]
