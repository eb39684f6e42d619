"""The prefix: the part of a step that computes the signal, from which all variants continue."""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from torch import fx

from fxcache.analysis.dependence import Dependence
from fxcache.partition.cut import CachePoint, SignalPoint
from fxcache.program import is_tensor


@dataclass(frozen=True, eq=False)
class Prefix:
    """The part of a program that computes a signal.

    Attributes:
        signal: The signal that the policy observes.
        shared: The values of the prefix that the rest of the program reads. They are inputs of
            variants.
    """

    signal: SignalPoint
    shared: tuple[fx.Node, ...]


def find_prefix(
    needs: Dependence,
    signal: SignalPoint,
    points: Iterable[CachePoint],
    hoisted: Iterable[fx.Node] = (),
) -> Prefix:
    """Return the prefix that computes ``signal``.

    Args:
        needs: The dependences between values of the program.
        signal: The signal that the policy observes.
        points: The cache points.
        hoisted: Values that are inputs of the prefix and of variants.
    """
    bases = {leaf for point in points for leaf in point.needed}
    inside = set(needs.live_without(dict.fromkeys(hoisted, ()), signal.needed))
    computed = (n for n in inside if n.op == "call_function" and is_tensor(n))
    shared = [n for n in computed if n in bases or read_outside(n, inside)]
    return Prefix(signal, tuple(sorted(shared, key=needs.index.__getitem__)))


def read_outside(node: fx.Node, inside: Set[fx.Node]) -> bool:
    """Return whether a node outside reads ``node`` or an item of it: only tensors are shared."""
    return any(
        user not in inside or (not is_tensor(user) and read_outside(user, inside))
        for user in node.users
    )
