"""The prefix: what a policy observes is computed first, and every variant continues from there."""

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
        signal: What the policy observes.
        shared: What the rest of the program reads of the prefix. Variants take it as inputs.
    """

    signal: SignalPoint
    shared: tuple[fx.Node, ...]


def find_prefix(
    needs: Dependence,
    signal: SignalPoint,
    points: Iterable[CachePoint],
    hoisted: Iterable[fx.Node] = (),
) -> Prefix:
    """The prefix that ends where ``signal`` is known.

    Args:
        needs: What each value of the program depends on.
        signal: What the policy observes.
        points: What is cached after it.
        hoisted: Values that the prefix, and what continues from it, take as inputs.
    """
    bases = {leaf for point in points for leaf in point.needed}
    inside = set(needs.live_without(dict.fromkeys(hoisted, ()), signal.needed))
    computed = (n for n in inside if n.op == "call_function" and is_tensor(n))
    shared = [n for n in computed if n in bases or read_outside(n, inside)]
    return Prefix(signal, tuple(sorted(shared, key=needs.index.__getitem__)))


def read_outside(node: fx.Node, inside: Set[fx.Node]) -> bool:
    """Whether something outside reads ``node``, or pieces of it: only tensors can be handed on."""
    return any(
        user not in inside or (not is_tensor(user) and read_outside(user, inside))
        for user in node.users
    )
