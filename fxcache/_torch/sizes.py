"""Sizes that may vary."""

from typing import Any

__all__ = [
    "expression_of",
    "guards_of",
    "hint_of",
]


def hint_of(size: Any) -> int | None:
    """``size`` as a number: for one that may vary, what it was at capture; None if never known.

    Why: a symbolic size is turned into an int only by fixing it for good.
    """
    return size if isinstance(size, int) else size.node.hint


def expression_of(size: Any) -> Any:
    """The sympy expression of a size that may vary; the number of one that turned out not to.

    Why: torch.export names relations between sizes in its ranges by these, and gives no way to it.
    """
    return size if isinstance(size, int) else size.node.expr


def guards_of(size: Any) -> list[Any]:
    """The conditions, as sympy expressions, under which the sizes in its graph may vary.

    Why: torch.export's public ranges leave out those between sizes, such as ``height > width``.
    """
    if isinstance(size, int):
        return []
    known = size.node.shape_env
    return [known.simplify(guard.expr) for guard in known.guards]
