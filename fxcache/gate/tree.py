"""Trees of measured values: dicts and lists whose leaves are numbers, texts or flat lists."""

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
# Dicts that count something by name. A name that is not there counts as 0.
COUNTERS = frozenset({"operators", "reasons", "breaks", "host_reads", "imports", "kernels"})
# The name of the entry that tells which kind of thing a dict describes.
KIND = "policy"


class Missing:
    """A part of one tree that the other does not have."""

    def __repr__(self) -> str:
        return "missing"


MISSING = Missing()


def differences(expected: Any, measured: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the path and both values wherever two trees differ.

    A subtree that one tree does not have is one difference. So is a dict that describes a thing of
    another kind.
    """
    if is_tree(expected) and is_tree(measured) and of_one_kind(expected, measured):
        first, second = children(expected), children(measured)
        default = 0 if path and path[-1] in COUNTERS else MISSING
        for name in dict.fromkeys((*first, *second)):
            inner = (*path, name)
            yield from differences(first.get(name, default), second.get(name, default), inner)
    elif expected != measured:
        yield path, expected, measured


def is_tree(value: Any) -> bool:
    """Return whether ``value`` has named parts: a dict, or a list of dicts."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def of_one_kind(first: Any, second: Any) -> bool:
    """Return whether two trees describe things of one kind, or do not tell a kind."""
    kinds = [tree.get(KIND) if isinstance(tree, Mapping) else None for tree in (first, second)]
    return any(map(is_tree, kinds)) or kinds[0] == kinds[1]


def children(tree: Any) -> dict[str, Any]:
    """Return the parts of a tree by name. Those of a list have their numbers as names."""
    if isinstance(tree, Mapping):
        return dict(tree)
    return {str(index): item for index, item in enumerate(tree)}


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of each leaf."""
    if is_tree(tree):
        for name, inner in children(tree).items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, tree


def entry_of(path: Path) -> str:
    """Return a path as one text."""
    return "/".join(path)
