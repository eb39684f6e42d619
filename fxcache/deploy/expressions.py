"""Conditions on sizes that may vary, in a small grammar: whole numbers, names and operators.

``["<=", ["+", "s0", 1], 64]`` is the condition ``s0 + 1 <= 64``.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fxcache.deploy.fields import damaged
from fxcache.errors import ArtifactError

MAX_NUMBER = 2**62
MAX_DEPTH = 24
MAX_ARGUMENTS = 64
MAX_POWER = 5
OPERATORS: dict[str, Callable[..., Any]] = {
    "+": lambda *values: sum(values),
    "*": lambda *values: prod(values),
    "mod": operator.mod,
    "floordiv": operator.floordiv,
    "max": max,
    "min": min,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "and": lambda *values: all(values),
    "or": lambda *values: any(values),
    "not": operator.not_,
}
# The classes of sympy and of torch's symbolic shapes, by name.
NAMES = {
    "Add": "+", "Mul": "*", "Mod": "mod", "PythonMod": "mod", "FloorDiv": "floordiv",
    "Max": "max", "Min": "min", "Equality": "==", "Unequality": "!=",
    "StrictLessThan": "<", "LessThan": "<=", "StrictGreaterThan": ">", "GreaterThan": ">=",
    "And": "and", "Or": "or", "Not": "not",
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """A condition of an artifact, with the interface of a sympy expression."""

    name: str
    arguments: tuple[Any, ...]

    def subs(self, values: Mapping[Any, int]) -> Any:
        """Return whether the condition holds for these values of the symbols."""
        try:
            return self._value(values)
        except (ArithmeticError, TypeError):  # such as a division by zero
            return False

    def _value(self, values: Mapping[Any, int]) -> Any:
        parts = self.arguments
        found = [p._value(values) if isinstance(p, Condition) else values.get(p, p) for p in parts]
        return OPERATORS[self.name](*found)


def to_json(expression: Any) -> Any:
    """Return a sympy expression of whole numbers and symbols, or a ``Condition``, as JSON.

    Raises:
        ArtifactError: It has an operator that the grammar lacks.
    """
    if isinstance(expression, Condition):
        return [expression.name, *map(to_json, expression.arguments)]
    if isinstance(expression, int):
        return expression
    if expression.is_Symbol:
        return str(expression)
    if expression.is_Integer:
        return int(expression)
    if (name := NAMES.get(type(expression).__name__)) is not None:
        return [name, *map(to_json, expression.args)]
    if type(expression).__name__ == "Pow" and expression.args[1] in range(2, MAX_POWER):
        base, exponent = expression.args
        return ["*", *[to_json(base)] * int(exponent)]
    raise ArtifactError(
        f"the condition {expression} on sizes cannot be part of an artifact",
        where="CaptureConfig(dynamic=...)",
        remedy="leave out the dimensions that it names",
    )


def from_json(data: Any, symbols: Mapping[str, Any], where: str, depth: int = 0) -> Any:
    """Return the number, the symbol or the condition that ``to_json`` described.

    Raises:
        ArtifactError: ``data`` is none, or names another symbol.
    """
    if depth > MAX_DEPTH:
        raise damaged("conditions are nested too deeply", where)
    if type(data) is int and abs(data) <= MAX_NUMBER:
        return data
    if type(data) is str and data in symbols:
        return symbols[data]
    if type(data) is list and 2 <= len(data) <= MAX_ARGUMENTS and data[0] in tuple(OPERATORS):
        arguments = tuple(from_json(a, symbols, where, depth + 1) for a in data[1:])
        return Condition(data[0], arguments)
    raise damaged(f"unknown condition {str(data)[:80]}", where)
