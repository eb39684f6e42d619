"""Access to symbolic sizes, which may vary."""

from typing import Any

__all__ = [
    "expression_of",
    "guards_of",
    "hint_of",
]


def hint_of(size: Any) -> int | None:
    """Return ``size`` as an int: its value at capture if it is symbolic; None if unknown.

    Why: the public conversion to an int makes the size constant.
    """
    return size if isinstance(size, int) else size.node.hint


def expression_of(size: Any) -> Any:
    """Return the sympy expression of a symbolic size; a plain number if the size is fixed.

    Why: torch.export's ranges refer to these expressions, which are private.
    """
    expression = size if isinstance(size, int) else size.node.expr
    return int(expression) if getattr(expression, "is_Integer", False) else expression


def guards_of(size: Any) -> list[Any]:
    """Return the guards on the symbolic sizes of a graph, as sympy expressions.

    Why: torch.export's public ranges have no guards between sizes, such as ``height > width``.
    """
    if isinstance(size, int):
        return []
    known = size.node.shape_env
    return [known.simplify(guard.expr) for guard in known.guards]
