"""The leaves of nested arguments: dicts, lists and tuples, with a path to each leaf."""

from collections.abc import Callable, Iterator
from typing import Any


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts, lists and tuples, in torch's pytree order, with their paths."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    else:
        yield path, value


def named_leaves(arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The leaves of a call's arguments, with their paths."""
    for name, argument in arguments.items():
        yield from leaves(argument, name)


def with_leaves(value: Any, path: str, leaf: Callable[[str, Any], Any], fresh: bool = False) -> Any:
    """``value`` with each leaf replaced by ``leaf(path, old)``.

    Unchanged containers are reused. If ``fresh``, dicts and lists are not: they may be written to.
    """
    if isinstance(value, dict):
        new = {key: with_leaves(v, f"{path}.{key}", leaf, fresh) for key, v in value.items()}
        same = all(new[key] is item for key, item in value.items())
        return value if same and not (fresh and type(value) is dict) else new
    if isinstance(value, list | tuple):
        items = [with_leaves(v, f"{path}.{i}", leaf, fresh) for i, v in enumerate(value)]
        same = all(new is old for new, old in zip(items, value, strict=True))
        if same and not (fresh and type(value) is list):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return leaf(path, value)


def without(value: Any, path: str, hidden: set[str]) -> Any:
    """``value`` with None in place of each leaf whose path is in ``hidden``."""
    return with_leaves(value, path, lambda at, leaf: None if at in hidden else leaf)
