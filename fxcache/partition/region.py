"""What must be cached to skip everything from one module to another."""

import operator
from collections.abc import Iterable, Set

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.analysis.dependence import Dependence
from fxcache.analysis.streams import ADDS, Shortcut, Streams, same_kind
from fxcache.partition.cut import CachePoint
from fxcache.program import is_tensor, nbytes_of, value_of

# Through these an exit is followed to where less of it is left, as to the image part of a stream.
NARROWING = frozenset({"slice", "narrow", "select", "view", "reshape", "squeeze", "unsqueeze"})


def cache_points(
    needs: Dependence, first: list[fx.Node], last: list[fx.Node]
) -> tuple[CachePoint, ...]:
    """The cache points that replace what lies between the modules traced to ``first`` and ``last``.

    The region is what is computed from the latent in ``first`` and needed by ``last``. A point
    stands wherever something outside the region reads a value of it, which decides whether that is
    one stream or two: a program has no dead code, so that whatever is read is needed. Empty where
    the two modules are not one after the other.
    """
    region = region_between(needs, first, last)
    ends = [narrowed(value) for value in exits(region, needs)]
    region |= needs.mask(node for end in ends for node in end)
    streams = Streams(needs, region)
    entries = entries_of(streams.inside, needs)
    points = {}
    for *_, value in ends:
        shortcut = streams.shortcut(value) or only_like(value, entries)
        if shortcut is None or not shortcut.exact:  # what is only moved is moved afresh
            points[value] = CachePoint(value, shortcut)
    return tuple(points.values())


def region_between(needs: Dependence, first: list[fx.Node], last: list[fx.Node]) -> int:
    """Mask of what is computed from the latent in ``first`` and needed by ``last``."""
    started = [n for n in first if needs.on_latent(n)]
    region = needs.between(started, [n for n in last if needs.on_latent(n)])
    return region | needs.mask(additions_after(set(needs.members(region)), needs))


def streams_between(needs: Dependence, first: list[fx.Node], last: list[fx.Node]) -> Streams:
    """The streams through that region."""
    return Streams(needs, region_between(needs, first, last))


def additions_after(inside: set[fx.Node], needs: Dependence) -> set[fx.Node]:
    """The residual additions that follow a region, where its blocks leave them to their parent."""
    entries, grown = set(entries_of(inside, needs)), set(inside)
    for node in needs.nodes:
        sources = {n for n in node.all_input_nodes if needs.on_latent(n)}
        if (
            op_name(node) in ADDS
            and sources & grown
            and all(n in grown or n in entries for n in sources)
        ):
            grown.add(node)
    return grown - inside


def exits(region: int, needs: Dependence) -> list[fx.Node]:
    """The tensors of a region that something outside it reads, in graph order."""
    nodes = needs.members(region)
    inside = set(nodes)
    found: dict[fx.Node, None] = {}
    for node in nodes:
        if any(user not in inside for user in node.users):
            found |= dict.fromkeys([node] if is_tensor(node) else tensors_of(node))
    return list(found)


def tensors_of(node: fx.Node) -> Iterable[fx.Node]:
    """The tensors taken out of a node that yields several."""
    return [user for user in node.users if user.target is operator.getitem]


def narrowed(value: fx.Node) -> list[fx.Node]:
    """From ``value`` on to the smaller part of it that alone is read later."""
    chain = best = [value]
    while len(chain[-1].users) == 1:
        (user,) = chain[-1].users
        if op_name(user) not in NARROWING:
            break
        chain = [*chain, user]
        if nbytes_of(user) < nbytes_of(best[-1]):
            best = chain
    return best


def entries_of(inside: Set[fx.Node], needs: Dependence) -> list[fx.Node]:
    """What a region reads from outside that changes with the latent."""
    sources = dict.fromkeys(s for node in inside for s in node.all_input_nodes)
    return [s for s in sources if s not in inside and needs.on_latent(s)]


def only_like(value: fx.Node, entries: list[fx.Node]) -> Shortcut | None:
    """The one entry that has the shape and dtype of ``value``, as its shortcut.

    For blocks that do more to their stream than add to it: a difference is still nearer to the
    value than nothing. None where no or more than one entry fits.
    """
    like = [e for e in entries if is_tensor(e) and same_kind(value_of(e), value_of(value))]
    return Shortcut(like[0], (), {}, (like[0],)) if len(like) == 1 else None
