"""Compares the attributes of modules before and after calls."""

from collections import deque
from typing import Any

from torch import Tensor, nn

from fxcache._torch import version_of
from fxcache.contents import PLAIN

DEPTH = 3  # how many levels of nested containers and objects are compared
REGISTRIES = frozenset(vars(nn.Module())) - {"training"}  # those of weights, submodules and hooks


def attributes_of(module: nn.Module) -> list[dict[str, Any]]:
    """Return copies of the attributes of ``module`` and of its submodules."""
    return [{k: v for k, v in vars(m).items() if k != "forward"} for m in module.modules()]


def same_attributes(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether two copies of attributes hold the same objects."""
    return first.keys() == second.keys() and all(first[k] is second[k] for k in first)


def contents_of(module: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return the contents of the attributes of ``module`` and of its submodules."""
    return {
        m: {k: content(v) for k, v in vars(m).items() if k not in REGISTRIES and k != "forward"}
        for m in module.modules()
    }


def changed(
    before: dict[nn.Module, dict[str, Any]], after: dict[nn.Module, dict[str, Any]]
) -> dict[nn.Module, set[str]]:
    """Return the attributes with other contents, by module."""
    return {
        module: {k for k in then.keys() | now.keys() if then.get(k) != now.get(k)}
        for module, now in after.items()
        if (then := before[module]) != now
    }


def content(value: Any, depth: int = DEPTH) -> Any:
    """Return a form of ``value`` that differs after any change of it."""
    if isinstance(value, PLAIN):
        return value
    own = (id(value), Kept(value))
    if isinstance(value, Tensor):
        return (*own, version_of(value))
    if depth == 0 or isinstance(value, nn.Module | type):
        return own
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [content(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return [(content(k, 0), content(v, depth - 1)) for k, v in value.items()]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        return (*own, content(attributes, depth - 1))
    return own


class Kept:
    """Keeps an object, so that no other gets its id. All are equal."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept)

    __hash__ = None  # type: ignore[assignment]
